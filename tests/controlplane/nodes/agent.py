"""A scripted agent: a real gRPC client of NodeSessions that says what a test tells it to and keeps what it hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from podplane.v1 import config_pb2, node_pb2, pod_pb2, reference_pb2, session_pb2
from tests.controlplane.plane import Client, Plane

DEADLINE = 5.0


class Agent:
    """One session. `heard` holds every frame that was read, but for heartbeats and changes of nodes.

    Those come when they come: the node controller taints a node that has reported nothing.
    """

    def __init__(self, plane: Plane, name: str, instance: str = "one", client: Client | None = None) -> None:
        self.name = name
        self.instance = instance
        self.client = client or plane.node(name)
        self.heard: list[session_pb2.ControlFrame] = []
        self._out: asyncio.Queue[session_pb2.AgentFrame | None] = asyncio.Queue()
        self.call: Any = self.client.call("NodeSessions/Connect", self._frames())
        self._in = self._read()

    async def _frames(self) -> AsyncIterator[session_pb2.AgentFrame]:
        while (frame := await self._out.get()) is not None:
            yield frame

    async def _read(self) -> AsyncIterator[session_pb2.ControlFrame]:
        async for frame in self.call:
            if not frame.HasField("batch"):
                yield frame
            for each in frame.batch.frames:
                yield session_pb2.ControlFrame.FromString(each)

    def say(self, **frame: Any) -> None:
        self._out.put_nowait(session_pb2.AgentFrame(**frame))

    def hang_up(self) -> None:
        self.call.cancel()

    async def hear(self, kind: str) -> Any:
        """Read on until a frame of this kind, and return what it carries."""
        async with asyncio.timeout(DEADLINE):
            async for frame in self._in:
                found = frame.WhichOneof("frame")
                if found == "heartbeat" or (found == "object" and frame.object.type == "MODIFIED" and
                                            frame.object.HasField("node")):  # fmt: skip
                    continue
                self.heard.append(frame)
                if found == kind:
                    return getattr(frame, found)
        raise AssertionError(f"the session ended before {kind}")

    async def connect(self, **hello: Any) -> list[session_pb2.ControlFrame]:
        """Say hello and read until the end of the snapshot; the snapshot's content."""
        self.say(hello=session_pb2.Hello(nodeName=self.name, instanceID=self.instance, **hello))
        await self.hear("snapshotEnd")
        kinds = [frame.WhichOneof("frame") for frame in self.heard]
        return self.heard[kinds.index("snapshotBegin") + 1 : -1]

    def report(self, pod: Any, sequence: int, phase: str, *, terminated: bool = False) -> None:
        self.say(
            podStatus=session_pb2.PodStatusReport(
                namespace=pod.metadata.namespace,
                name=pod.metadata.name,
                uid=pod.metadata.uid,
                sequence=sequence,
                status={"phase": phase, "message": f"report {sequence}"},  # type: ignore[arg-type]
                terminated=terminated,
            )
        )

    def report_node(self, **conditions: str) -> None:
        node = node_pb2.Node()
        node.status.capacity.update({"cpu": "4", "memory": "8Gi", "pods": "110"})
        node.status.allocatable.update({"cpu": "4", "memory": "8Gi", "pods": "110"})
        node.status.nodeInfo.operatingSystem, node.status.nodeInfo.architecture = "linux", "amd64"
        node.status.addresses.add(type="InternalIP", address="192.0.2.1")
        for kind, value in {"Ready": "True", **conditions}.items():
            node.status.conditions.add(type=kind, status=value, reason="AgentReady")
        self.say(node=node)


def pod(name: str, node: str = "node-1", **references: str) -> pod_pb2.Pod:
    made = pod_pb2.Pod(metadata={"name": name})  # type: ignore[arg-type]
    made.spec.nodeName = node
    container = made.spec.containers.add(name="main", image="host")
    container.command.append("sleep")
    if "secret" in references:
        container.env.add(name="KEY").valueFrom.secretKeyRef.MergeFrom(_key(references["secret"]))
    if "config" in references:
        volume = made.spec.volumes.add(name="config")
        volume.configMap.name = references["config"]
    return made


def _key(name: str) -> Any:
    return reference_pb2.SecretKeySelector(name=name, key="key")


def secret(name: str, value: bytes = b"1") -> config_pb2.Secret:
    return config_pb2.Secret(metadata={"name": name}, data={"key": value})  # type: ignore[arg-type]


async def until(condition: Callable[[], Any]) -> Any:
    """Wait until the condition holds, and return what it gave."""
    async with asyncio.timeout(5):
        while not (found := condition()):
            await asyncio.sleep(0.01)
    return found
