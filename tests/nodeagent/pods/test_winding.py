"""How a pod is brought to its end: by its deletion, its deadline, an eviction."""

from __future__ import annotations

import pytest

from nodeagent.pods import effects as do
from nodeagent.pods import events as did
from nodeagent.pods.machine import wake_at
from tests.nodeagent.pods.world import World, make_pod


def test_deletion_terms_at_once_and_kills_only_at_the_end_of_the_grace() -> None:
    world = World(make_pod(apps=2))
    world.run()
    world.post(did.DeletionRequested(world.now, 30))
    world.settle()
    assert len(world.issued(do.SignalContainer)) == 2
    world.exit("a1", 0)
    world.settle()
    world.pass_time(29.9)
    assert not world.issued(do.KillContainer)
    world.pass_time(0.2)
    assert world.issued(do.KillContainer) == [do.KillContainer("a0", 0)]
    ended = next(s for s in reversed(world.statuses) if s.containerStatuses[0].state.HasField("terminated"))
    assert ended.containerStatuses[0].state.terminated.exitCode == 137
    assert [type(e) for e in world.done[-7:]] == [
        do.KillContainer,
        do.RemoveContainer,
        do.RemoveContainer,
        do.RemoveVolumes,
        do.RemoveSandbox,
        do.ReleaseAddress,
        do.ReportGone,
    ]
    assert world.state.gone


def test_a_later_deletion_shortens_the_grace_and_never_lengthens_it() -> None:
    world = World(make_pod())
    world.run()
    world.post(did.DeletionRequested(world.now, 30))
    world.post(did.DeletionRequested(world.now, 300))
    assert wake_at(world.state, world.now) == world.now + 30
    world.post(did.DeletionRequested(world.now, 0))
    world.settle()
    assert world.state.gone


@pytest.mark.parametrize("stop_after", range(12))
def test_deletion_at_any_moment_of_the_start_leaves_nothing(stop_after: int) -> None:
    world = World(make_pod(apps=1, init=1))
    world.post(did.PodAdmitted(world.now))
    for _ in range(stop_after):
        if world.pending:
            world.perform(world.pending[0])
        elif "i0" in world.alive:
            world.exit("i0", 0)
    world.post(did.DeletionRequested(world.now, 0))
    world.settle()
    assert world.state.gone
    assert not world.alive
    created = {(e.container, e.attempt) for e in world.issued(do.CreateContainer)}
    assert created == {(e.container, e.attempt) for e in world.issued(do.RemoveContainer)}


def test_deletion_in_the_middle_of_a_pull_cancels_it() -> None:
    world = World(make_pod())
    world.post(did.PodAdmitted(world.now))
    world.post(did.DeletionRequested(world.now, 30))
    assert do.CancelPull("a0") in world.done
    world.post(did.ImageReady(world.now, "a0", "x", "x", "x", ""))
    world.settle()
    assert world.state.gone


def test_the_active_deadline_fails_a_running_pod() -> None:
    world = World(make_pod(activeDeadlineSeconds=5, terminationGracePeriodSeconds=3))
    world.run()
    world.pass_time(5.1)
    assert world.issued(do.SignalContainer)
    world.pass_time(3)
    assert (world.status.phase, world.status.reason) == ("Failed", "DeadlineExceeded")
    assert not world.alive
    world.pass_time(60)
    assert world.status.phase == "Failed"


def test_an_evicted_pod_is_stopped_fails_and_is_cleared_away() -> None:
    world = World(make_pod())
    world.run()
    world.post(did.PodEvicted(world.now, "The node was low on resource: memory. "))
    assert do.SignalContainer("a0", 0) in world.pending
    assert (world.status.reason, world.status.message) == ("Evicted", "The node was low on resource: memory. ")
    assert "Evicted: The node was low on resource: memory. " in world.told
    world.pass_time(1.0)
    assert not world.alive
    assert (world.status.phase, world.status.reason) == ("Failed", "Evicted")
    [disrupted] = [each for each in world.status.conditions if each.type == "DisruptionTarget"]
    assert (disrupted.status, disrupted.reason) == ("True", "TerminationByKubelet")
    assert (world.state.sandbox.stage, world.state.address) == ("absent", "")
    world.post(did.DeletionRequested(world.now, 0))
    world.settle()
    assert world.state.gone


def test_eviction_of_a_pod_that_ends_already_changes_nothing() -> None:
    world = World(make_pod())
    world.run()
    world.post(did.DeletionRequested(world.now, 30))
    world.post(did.PodEvicted(world.now, "too late"))
    assert world.state.kill_at == world.now + 30
    assert world.status.reason == ""
