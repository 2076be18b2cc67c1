"""Why a service answers or not, asked of scripted agents over real TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from podplane.v1 import diagnosis_pb2, service_pb2, session_pb2
from tests.controlplane.nodes.agent import Agent
from tests.controlplane.plane import Plane, status


def _service() -> service_pb2.Service:
    made = service_pb2.Service()
    made.metadata.name, made.metadata.namespace = "web", "default"
    made.spec.selector["app"] = "web"
    made.spec.ports.add(port=80)
    return made


async def _answer(agent: Agent, rules: diagnosis_pb2.ServiceRules) -> None:
    """Serve the next wish for a service's rules."""
    wish = await agent.hear("openStream")
    assert (wish.WhichOneof("request"), wish.rules.namespace, wish.rules.name) == ("rules", "default", "web")

    async def frames() -> AsyncIterator[session_pb2.AgentStreamFrame]:
        yield session_pb2.AgentStreamFrame(opened=session_pb2.StreamOpened(id=wish.id))
        yield session_pb2.AgentStreamFrame(rules=rules)

    assert all([frame.cancel async for frame in agent.client.call("NodeSessions/Attach", frames())])


async def test_every_node_is_asked_and_those_that_cannot_answer_are_rows(plane: Plane) -> None:
    admin = plane.person()
    agents = [Agent(plane, f"node-{number}") for number in (1, 2, 3)]
    for agent in agents:
        await agent.connect()
    made = await admin.call("Services/Create", _service())
    revision = int(made.metadata.resourceVersion)
    agents[2].hang_up()
    async with asyncio.timeout(5):
        while "node-3" in plane.control.sessions.connected():
            await asyncio.sleep(0.01)
    request = diagnosis_pb2.ServiceDiagnosisRequest(namespace="default", name="web")
    asked = asyncio.ensure_future(admin.call("Diagnosis/Service", request))
    rules = diagnosis_pb2.ServiceRules(mode="ipvs", known=True, programmedRevision=revision, knownRevision=revision)
    await _answer(agents[0], rules)
    wish = await agents[1].hear("openStream")
    words = "the kernel's rules cannot be read: no such device"
    agents[1].say(streamRefused=session_pb2.StreamRefused(id=wish.id, code="UNAVAILABLE", reason=words))
    found = await asked
    assert [(row.name, row.state) for row in found.nodes] == [
        ("node-1", "Agrees"), ("node-2", "NoAnswer"), ("node-3", "NotConnected")]  # fmt: skip
    assert found.nodes[1].message.startswith(words)
    assert found.nodes[2].HasField("lastSeen")
    assert found.revision == revision
    assert found.verdict.startswith("default/web answers nobody: NoPodMatches")


async def test_a_viewer_may_ask_and_a_node_may_not(plane: Plane) -> None:
    await plane.person().call("Services/Create", _service())
    request = diagnosis_pb2.ServiceDiagnosisRequest(name="web")
    assert not (await plane.person("view", "bob").call("Diagnosis/Service", request)).healthy
    assert (await status(plane.node("node-1").call("Diagnosis/Service", request)))[0] == "PERMISSION_DENIED"
    missing = diagnosis_pb2.ServiceDiagnosisRequest(name="absent")
    assert (await status(plane.person().call("Diagnosis/Service", missing)))[0] == "NOT_FOUND"
    wrong = diagnosis_pb2.ServiceDiagnosisRequest(name="web", to="192.0.2.1")
    assert (await status(plane.person().call("Diagnosis/Service", wrong)))[0] == "INVALID_ARGUMENT"
