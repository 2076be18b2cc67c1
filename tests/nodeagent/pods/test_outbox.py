"""What is said to the control plane: in order while it keeps up, the newest where it does not."""

from __future__ import annotations

import asyncio

from nodeagent.pods.clock import Clock
from nodeagent.pods.effects import Tell
from nodeagent.pods.outbox import QUEUED_A_POD, TOGETHER, Outbox
from nodeagent.pods.state import PodState, new_state
from nodeagent.pods.tools import NodeFacts
from podplane.v1.pod_pb2 import PodStatus
from podplane.v1.session_pb2 import AgentFrame
from tests.nodeagent.pods.world import make_pod


def box() -> Outbox:
    return Outbox(NodeFacts("n1", "10.0.0.1"), Clock())


def state(uid: str = "uid-1") -> PodState:
    pod = make_pod()
    pod.metadata.uid = uid
    return new_state(pod)


def say(outbox: Outbox, word: str, uid: str = "uid-1") -> None:
    outbox.status(state(uid), PodStatus(message=word))


async def drain(outbox: Outbox) -> list[AgentFrame]:
    frames: list[AgentFrame] = []
    outbox._hurry()
    while taken := outbox._take():
        frames += taken
    return frames


async def test_transitions_come_in_order_with_a_rising_sequence() -> None:
    outbox = box()
    for word in "abc":
        say(outbox, word)
    reports = [frame.podStatus for frame in await drain(outbox)]
    assert [report.status.message for report in reports] == ["a", "b", "c"]
    assert [report.sequence for report in reports] == sorted({report.sequence for report in reports})


async def test_beyond_the_bound_only_the_newest_is_said() -> None:
    outbox = box()
    for n in range(QUEUED_A_POD + 1):
        say(outbox, str(n))
    assert [f.podStatus.status.message for f in await drain(outbox)] == [str(QUEUED_A_POD)]


async def test_pods_take_turns() -> None:
    outbox = box()
    for n in range(3):
        say(outbox, f"x{n}", "x")
    say(outbox, "y0", "y")
    assert [f.podStatus.status.message for f in await drain(outbox)] == ["x0", "y0", "x1", "x2"]


async def test_a_reconnect_says_the_newest_again_under_a_new_sequence() -> None:
    outbox = box()
    say(outbox, "a")
    say(outbox, "b")
    last = (await drain(outbox))[-1].podStatus.sequence
    outbox.reconnected()
    (again,) = await drain(outbox)
    assert again.podStatus.status.message == "b"
    assert again.podStatus.sequence > last


async def test_a_pod_that_is_forgotten_is_said_to_be_gone_and_nothing_more() -> None:
    outbox = box()
    say(outbox, "a")
    outbox.forgotten("uid-1")
    frames = await drain(outbox)
    assert [frame.WhichOneof("frame") for frame in frames] == ["gone"]
    outbox.reconnected()
    assert await drain(outbox) == []


async def test_an_event_goes_with_the_next_status_or_a_moment_later_by_itself() -> None:
    outbox = box()
    outbox.event(state().pod, Tell("Normal", "Created", "made"))
    outbox.acknowledge(7)
    say(outbox, "a")
    together = await outbox.next()
    assert [frame.WhichOneof("frame") for frame in together.batch.frames] == ["podStatus", "event", "acknowledge"]
    outbox.event(state().pod, Tell("Normal", "Started", "begun"))
    assert outbox._take() == []
    async with asyncio.timeout(5):
        assert (await outbox.next()).event.reason == "Started"


async def test_a_message_is_bounded() -> None:
    outbox = box()
    for n in range(TOGETHER + 1):
        say(outbox, "x", str(n))
        outbox.event(state(str(n)).pod, Tell("Normal", "Created", "made"))
    sizes = [len((await outbox.next()).batch.frames) for _ in range(2)]
    assert sizes == [TOGETHER, TOGETHER]
    assert {frame.WhichOneof("frame") for frame in await drain(outbox)} == {"event"}


async def test_a_repeated_event_is_counted() -> None:
    outbox = box()
    pod = state().pod
    for _ in range(3):
        outbox.event(pod, Tell("Warning", "BackOff", "again", "a0"))
    events = [frame.event for frame in await drain(outbox)]
    assert [event.count for event in events] == [1, 2, 3]
    assert len({event.metadata.name for event in events}) == 1
    assert events[0].involvedObject.fieldPath == "spec.containers{a0}"


async def test_events_of_a_pod_are_remembered_until_it_is_forgotten() -> None:
    outbox = box()
    for _ in range(2):
        for uid in ("uid-1", "uid-2"):
            outbox.event(state(uid).pod, Tell("Warning", "BackOff", "again"))
    outbox.forgotten("uid-1")
    assert {key[0] for key in outbox._recorder._known} == {"uid-2"}
    outbox.event(state("uid-2").pod, Tell("Warning", "BackOff", "again"))
    *_, last = await drain(outbox)
    assert last.event.count == 3


async def test_last_words_are_waited_for_while_somebody_takes_them() -> None:
    outbox = box()
    say(outbox, "last")
    taken: list[AgentFrame] = []

    async def session() -> None:
        while True:
            taken.append(await outbox.next())

    task = asyncio.ensure_future(session())
    await outbox.emptied(5)
    assert [frame.podStatus.status.message for frame in taken] == ["last"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
