"""Pods.Exec, Attach and PortForward: the caller's frames to the pod's node and back, by a reverse stream (D5).

Owns no state. Authorizes the first frame, which names the pod, and looks at the pod before a node is asked: what
cannot be is refused in kubectl's and the kubelet's words. A caller that half-closes says no more: closeStdin or
closeWrite. One that goes away ends the stream, and the node then ends what it ran for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from controlplane.api.authz import Attempt
from controlplane.api.containers import container_of
from controlplane.api.grpc_server import Behaviour, Call
from controlplane.api.handlers import DEFAULT_NAMESPACE
from controlplane.nodes import Sessions
from controlplane.objects import Objects
from podplane.errors import Invalid, NotFound, Unavailable
from podplane.kinds import POD
from podplane.v1 import pod_pb2, requests_pb2, session_pb2

FINAL = ("Succeeded", "Failed")

ControlFrame = session_pb2.ControlStreamFrame


class InteractiveStreams:
    """The methods of Pods with a stream in both directions."""

    def __init__(self, objects: Objects, sessions: Sessions) -> None:
        self._objects = objects
        self._sessions = sessions

    def behaviours(self) -> dict[str, Behaviour]:
        """By method name."""
        return {"Exec": self.exec, "Attach": self.attach, "PortForward": self.port_forward}

    async def exec(
        self, requests: AsyncIterator[requests_pb2.ExecRequest], call: Call
    ) -> AsyncIterator[requests_pb2.ExecResponse]:
        """stdout and stderr as they come, then exit."""
        first, pod = await self._begin(requests, call)
        if not first.start.command:
            raise Invalid("start.command: you must specify at least one command for the container")
        if first.start.timeoutSeconds < 0:
            raise Invalid("start.timeoutSeconds: must not be negative")
        self._settle(first.start, pod, "exec into")
        wish = session_pb2.OpenStream(podUID=pod.metadata.uid, exec=first)
        async with contextlib.aclosing(self._open(pod, wish, _stdin(requests))) as frames:
            async for frame in frames:
                yield frame.exec
                if frame.exec.HasField("exit"):
                    return
        raise _broken_off(pod)

    async def attach(
        self, requests: AsyncIterator[requests_pb2.ExecRequest], call: Call
    ) -> AsyncIterator[requests_pb2.ExecResponse]:
        """What the container writes from now on, and its exit."""
        first, pod = await self._begin(requests, call)
        self._settle(first.start, pod, "attach to")
        wish = session_pb2.OpenStream(podUID=pod.metadata.uid, attach=first)
        async with contextlib.aclosing(self._open(pod, wish, _stdin(requests))) as frames:
            async for frame in frames:
                yield frame.exec
                if frame.exec.HasField("exit"):
                    return
        raise _broken_off(pod)

    async def port_forward(
        self, requests: AsyncIterator[requests_pb2.PortForwardRequest], call: Call
    ) -> AsyncIterator[requests_pb2.PortForwardResponse]:
        """One connection to one port of the pod; ends when both directions have ended."""
        first, pod = await self._begin(requests, call)
        if not 0 < first.start.port < 65536:
            raise Invalid("start.port: must be between 1 and 65535")
        if pod.status.phase != "Running":
            raise Invalid(f"unable to forward port because pod is not running. Current status={pod.status.phase}")
        wish = session_pb2.OpenStream(podUID=pod.metadata.uid, portForward=first)
        async with contextlib.aclosing(self._open(pod, wish, _data(requests))) as frames:
            whole = False
            async for frame in frames:
                yield frame.portForward
                whole = whole or frame.portForward.closeWrite
        if not whole:
            raise _broken_off(pod)

    def _open(
        self, pod: pod_pb2.Pod, wish: session_pb2.OpenStream, inbound: AsyncIterator[ControlFrame]
    ) -> AsyncGenerator[session_pb2.AgentStreamFrame]:
        return self._sessions.open_stream(pod.spec.nodeName, wish, inbound)

    async def _begin(self, requests: AsyncIterator[Any], call: Call) -> tuple[Any, pod_pb2.Pod]:
        """The first frame, once its caller is known to be allowed, and the pod that it names."""
        first = await anext(aiter(requests), None)
        if first is None or not first.HasField("start"):
            raise Invalid("the first message must carry start")
        start = first.start
        start.namespace = start.namespace or DEFAULT_NAMESPACE
        call.require(Attempt(call.rule.verb, call.rule.resource, start.namespace, start.name))
        if not start.name:
            raise Invalid("start.name: name must be set")
        pod = self._objects.stored(POD, start.namespace, start.name).obj
        if not pod.spec.nodeName:
            raise Invalid(f"pod {start.name} does not have a host assigned")
        return first, pod

    def _settle(self, start: requests_pb2.ExecRequest.Start, pod: pod_pb2.Pod, verb: str) -> None:
        """Check what exec and attach share and fill in the container."""
        if pod.status.phase in FINAL:
            phase = pod.status.phase
            raise Invalid(f"cannot {verb} a container in a completed pod; current phase is {phase}")
        start.container = container_of(pod, start.container)
        if not any(status.name == start.container for status in _statuses(pod)):
            raise NotFound(f'container not found ("{start.container}")')


def _statuses(pod: pod_pb2.Pod) -> list[pod_pb2.ContainerStatus]:
    return [*pod.status.initContainerStatuses, *pod.status.containerStatuses]


def _broken_off(pod: pod_pb2.Pod) -> Unavailable:
    """An agent that was killed and one that is done look alike to gRPC: only the last frame tells them apart."""
    return Unavailable(f"node {pod.spec.nodeName} broke the stream off")


async def _stdin(requests: AsyncIterator[requests_pb2.ExecRequest]) -> AsyncIterator[ControlFrame]:
    async for request in requests:
        if request.HasField("start"):
            raise Invalid("only the first message carries start")
        yield ControlFrame(exec=request)
    yield ControlFrame(exec=requests_pb2.ExecRequest(closeStdin=True))


async def _data(requests: AsyncIterator[requests_pb2.PortForwardRequest]) -> AsyncIterator[ControlFrame]:
    async for request in requests:
        if request.HasField("start"):
            raise Invalid("only the first message carries start")
        yield ControlFrame(portForward=request)
    yield ControlFrame(portForward=requests_pb2.PortForwardRequest(closeWrite=True))
