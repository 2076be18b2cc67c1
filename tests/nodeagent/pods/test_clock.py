"""Setting the wall clock: people see wall times, and what is to come comes after as long as before."""

from __future__ import annotations

import pytest

from nodeagent.pods.clock import Clock
from nodeagent.pods.codec import decode, encode
from nodeagent.pods.events import ClockStepped, DeletionRequested
from nodeagent.pods.machine import wake_at
from nodeagent.pods.recovery import _stepped
from tests.nodeagent.pods.world import World, make_pod

HOUR = 3600.0


class Hands:
    """A wall clock that can be set, over a monotonic one that cannot."""

    def __init__(self) -> None:
        self.wall, self.steady = 1_000_000.0, 50.0
        self.clock = Clock(lambda: self.wall, lambda: self.steady)

    def go(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@pytest.mark.parametrize("by", [HOUR, -HOUR])
def test_the_clock_follows_a_step_when_it_looks_and_not_before(by: float) -> None:
    hands = Hands()
    hands.go(10)
    hands.wall += by
    assert hands.clock.now() == 1_000_010
    assert hands.clock.follow() == by
    assert hands.clock.now() == 1_000_010 + by
    assert hands.clock.follow() == 0.0


def test_drift_is_no_step() -> None:
    hands = Hands()
    hands.wall += 0.4
    assert hands.clock.follow() == 0.0


def set_clock(world: World, by: float) -> None:
    world.now += by
    world.post(ClockStepped(world.now, by))


@pytest.mark.parametrize("by", [HOUR, -HOUR])
def test_a_back_off_lasts_as_long_as_it_would_have(by: float) -> None:
    world = World(make_pod())
    world.run()
    for code in (1, 1):
        world.exit("a0", code)
        world.settle()
        world.pass_time(2)
    assert world.status.containerStatuses[0].state.waiting.reason == "CrashLoopBackOff"
    due = wake_at(world.state, world.now)
    assert due is not None
    left = due - world.now
    set_clock(world, by)
    again = wake_at(world.state, world.now)
    assert again == pytest.approx(world.now + left)
    world.pass_time(left + 0.1)
    assert world.status.containerStatuses[0].state.HasField("running")


@pytest.mark.parametrize("by", [HOUR, -HOUR])
def test_grace_is_neither_cut_nor_prolonged_and_what_has_been_keeps_its_time(by: float) -> None:
    world = World(make_pod())
    world.run()
    started = world.status.startTime
    world.post(DeletionRequested(world.now, 30))
    world.settle()
    world.pass_time(10)
    set_clock(world, by)
    world.pass_time(19)
    assert world.alive == {"a0": 0}
    assert world.status.startTime == started
    world.pass_time(2)
    assert world.alive == {}


@pytest.mark.parametrize("by", [HOUR, -HOUR])
def test_a_pods_deadline_counts_what_has_passed_and_not_what_the_clock_shows(by: float) -> None:
    world = World(make_pod(activeDeadlineSeconds=60))
    world.run()
    world.pass_time(50)
    set_clock(world, by)
    world.pass_time(9)
    assert world.state.reason == ""
    world.pass_time(2)
    assert world.state.reason == "DeadlineExceeded"


def test_a_step_while_no_agent_ran_is_made_up_for_unless_the_node_was_rebooted() -> None:
    hands = Hands()
    world = World(make_pod())
    world.run()
    world.state.offset = hands.clock.offset
    record = encode(world.state)
    hands.wall += HOUR
    later = Clock(lambda: hands.wall, lambda: hands.steady)
    again = decode(record, world.state.pod)
    assert _stepped(again, later, False) == [ClockStepped(later.now(), HOUR)]
    assert _stepped(decode(record, world.state.pod), later, True) == []
    world.state.offset = later.offset
    assert _stepped(world.state, later, False) == []
