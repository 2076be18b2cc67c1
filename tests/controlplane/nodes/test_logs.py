"""Logs of a pod come by a stream that its node's agent opens, over real TLS."""

from __future__ import annotations

import asyncio
from typing import Any

from podplane.v1 import requests_pb2, session_pb2
from tests.controlplane.nodes.agent import Agent, pod
from tests.controlplane.plane import Plane, status


async def test_logs_come_by_a_stream_that_the_agent_opens(plane: Plane) -> None:
    admin, agent = plane.person(), Agent(plane, "node-1")
    await agent.connect()
    await admin.call("Pods/Create", pod("mine"))
    await agent.hear("bind")
    logs = admin.call("Pods/Logs", requests_pb2.LogsRequest(name="mine"))
    reading = asyncio.create_task(_text(logs))
    wish = await agent.hear("openStream")
    assert wish.logs.container == "main"
    lines = [session_pb2.AgentStreamFrame(opened=session_pb2.StreamOpened(id=wish.id))]
    lines += [session_pb2.AgentStreamFrame(logs=requests_pb2.LogsChunk(text=f"line {n}\n")) for n in range(50)]
    attached = agent.client.call("NodeSessions/Attach", _each(lines))
    assert [frame async for frame in attached] == []
    assert await reading == "".join(f"line {n}\n" for n in range(50))


async def _each(frames: list[session_pb2.AgentStreamFrame]) -> Any:
    for frame in frames:
        yield frame


async def _text(stream: Any) -> str:
    return "".join([chunk.text async for chunk in stream])


async def test_logs_say_why_they_cannot_be_had(plane: Plane) -> None:
    admin, agent = plane.person(), Agent(plane, "node-1")
    await agent.connect()
    await admin.call("Pods/Create", pod("mine"))
    await admin.call("Pods/Create", pod("theirs", "node-2"))
    await agent.hear("bind")
    assert await status(admin.call("Pods/Logs", requests_pb2.LogsRequest(name="theirs"))) == (
        "UNAVAILABLE",
        "node node-2 is not connected",
    )
    wrong = requests_pb2.LogsRequest(name="mine", container="other")
    assert (await status(admin.call("Pods/Logs", wrong)))[0] == "INVALID_ARGUMENT"
    refused = asyncio.create_task(status(admin.call("Pods/Logs", requests_pb2.LogsRequest(name="mine"))))
    wish = await agent.hear("openStream")
    agent.say(streamRefused=session_pb2.StreamRefused(id=wish.id, reason="no log yet", code="NOT_FOUND"))
    assert await refused == ("NOT_FOUND", "no log yet")
