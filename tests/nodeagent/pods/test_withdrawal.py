"""Scripts for the wait between a pod's deletion and SIGTERM: for the nodes' service rules, and no longer."""

from __future__ import annotations

import pytest

from nodeagent.pods import effects as do
from nodeagent.pods import events as did
from nodeagent.pods.codec import decode, encode
from nodeagent.pods.machine import wake_at
from nodeagent.pods.stopping import HOLD
from tests.nodeagent.pods.world import World, make_pod


def running() -> World:
    world = World(make_pod(apps=2))
    world.post(did.PodAdmitted(world.now))
    world.settle()
    return world


def deleted(world: World, grace: float = 30) -> None:
    world.post(did.DeletionRequested(world.now, grace, HOLD))


def signalled(world: World) -> int:
    return sum(isinstance(effect, do.SignalContainer) for effect in world.pending)


def test_sigterm_waits_for_the_rules_and_comes_with_them() -> None:
    world = running()
    deleted(world)
    assert signalled(world) == 0
    world.post(did.PodWithdrawn(world.now))
    assert signalled(world) == 2


def test_a_pod_that_no_rule_leads_to_waits_for_nothing() -> None:
    world = running()
    world.post(did.PodWithdrawn(world.now))
    assert signalled(world) == 0
    deleted(world)
    assert signalled(world) == 2


@pytest.mark.parametrize(("grace", "hold"), [(30.0, HOLD), (4.0, 2.0)])
def test_a_node_that_never_answers_costs_a_bounded_time_within_the_grace(grace: float, hold: float) -> None:
    world = running()
    deleted(world, grace)
    due = wake_at(world.state, world.now)
    assert due == pytest.approx(world.now + hold)
    world.post(did.TimePassed(world.now + hold))
    assert signalled(world) == 2
    assert world.state.kill_at == pytest.approx(world.now + grace)


def test_a_second_deletion_does_not_hold_it_again_and_none_by_force_does() -> None:
    world = running()
    deleted(world)
    world.post(did.DeletionRequested(world.now + HOLD - 1, 10, HOLD))
    assert world.state.held_until == pytest.approx(world.now + HOLD)
    forced = running()
    deleted(forced, 0)
    assert sum(isinstance(effect, do.KillContainer) for effect in forced.pending) == 2


def test_an_agent_that_comes_back_goes_on_waiting() -> None:
    world = running()
    deleted(world)
    world.state = decode(encode(world.state), world.state.pod)
    world.post(did.TimePassed(world.now + 1))
    assert signalled(world) == 0
    world.post(did.PodWithdrawn(world.now + 1))
    assert signalled(world) == 2


def test_a_preset_end_moves_with_the_clock() -> None:
    world = running()
    deleted(world)
    before = world.state.held_until
    world.post(did.ClockStepped(world.now, 3600.0))
    assert world.state.held_until == pytest.approx(before + 3600)
