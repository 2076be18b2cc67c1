"""What pods and nodes use, asked of scripted agents over real TLS."""

from __future__ import annotations

import asyncio
from typing import Any

from podplane.v1 import metrics_pb2, requests_pb2, session_pb2
from tests.controlplane.nodes.agent import Agent, pod
from tests.controlplane.plane import Plane, status


async def _answer(agent: Agent, report: session_pb2.UsageReport) -> None:
    """Serve the next wish for usage."""
    wish = await agent.hear("openStream")
    assert wish.WhichOneof("request") == "usage"
    frames = [
        session_pb2.AgentStreamFrame(opened=session_pb2.StreamOpened(id=wish.id)),
        session_pb2.AgentStreamFrame(usage=report),
    ]
    # The caller has what it wants after the report, and may say so before the stream has ended by itself.
    assert all([frame.cancel async for frame in agent.client.call("NodeSessions/Attach", _each(frames))])


async def _each(frames: list[session_pb2.AgentStreamFrame]) -> Any:
    for frame in frames:
        yield frame


def _report(*uids: str) -> session_pb2.UsageReport:
    made = session_pb2.UsageReport(windowSeconds=1.5)
    made.timestamp.seconds = 1000
    made.node.cpuNanoCores, made.node.memoryBytes = 1_500_000_000, 3 << 30
    for uid in uids:
        made.pods.add(uid=uid).containers.add(name="main", cpuNanoCores=2_000_001, memoryBytes=(5 << 20) + 1)
    return made


async def test_pods_are_told_in_kubernetes_shape_and_those_of_silent_nodes_left_out(plane: Plane) -> None:
    admin, agent = plane.person(), Agent(plane, "node-1")
    await agent.connect()
    made = await admin.call("Pods/Create", pod("mine"))
    await admin.call("Pods/Create", pod("theirs", "node-2"))
    await agent.hear("bind")
    agent.report(made, 1, "Running")
    async with asyncio.timeout(5):
        while (await admin.call("Pods/Get", requests_pb2.GetRequest(name="mine"))).status.phase != "Running":
            await asyncio.sleep(0.01)
    asked = asyncio.ensure_future(admin.call("Metrics/Pods", metrics_pb2.MetricsRequest(namespace="default")))
    await _answer(agent, _report(made.metadata.uid, "another"))
    (found,) = (await asked).items
    assert (found.metadata.name, found.metadata.namespace, found.kind) == ("mine", "default", "PodMetrics")
    assert (found.window, found.timestamp.seconds) == ("1.500s", 1000)
    assert dict(found.containers[0].usage) == {"cpu": "2000001n", "memory": "5Mi"}


async def test_nodes_are_told_as_a_whole(plane: Plane) -> None:
    admin, agent = plane.person(), Agent(plane, "node-1")
    await agent.connect()
    asked = asyncio.ensure_future(admin.call("Metrics/Nodes", metrics_pb2.MetricsRequest()))
    await _answer(agent, _report())
    (found,) = (await asked).items
    assert (found.metadata.name, dict(found.usage)) == ("node-1", {"cpu": "1500000000n", "memory": "3Gi"})


async def test_a_viewer_may_look_and_a_node_may_not(plane: Plane) -> None:
    request = metrics_pb2.MetricsRequest(namespace="default")
    assert (await plane.person("view", "bob").call("Metrics/Pods", request)).items == []
    assert (await status(plane.node("node-1").call("Metrics/Pods", request)))[0] == "PERMISSION_DENIED"
    missing = metrics_pb2.MetricsRequest(namespace="default", name="absent")
    assert (await status(plane.person().call("Metrics/Pods", missing)))[0] == "NOT_FOUND"
