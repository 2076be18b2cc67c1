"""Scripts for the pod machine: init containers, one after the other, and what they leave."""

from __future__ import annotations

from nodeagent.pods import effects as do
from nodeagent.pods import events as did
from nodeagent.pods.backoff import KEPT
from tests.nodeagent.pods.world import World, make_pod


def test_init_containers_run_one_after_the_other_before_any_app() -> None:
    world = World(make_pod(apps=1, init=2))
    world.run()
    assert world.alive == {"i0": 0}
    world.exit("i0", 0)
    world.settle()
    assert world.alive == {"i1": 0}
    world.exit("i1", 0)
    world.settle()
    assert world.alive == {"a0": 0}
    assert world.status.phase == "Running"


def test_what_a_done_init_container_left_goes_later_and_with_the_pod_at_once() -> None:
    for deleted in (False, True):
        world = World(make_pod(init=2))
        world.run()
        world.succeed("i0", "i1")
        assert "a0" in world.alive
        world.pass_time(KEPT - 0.1)
        assert not world.issued(do.RemoveContainer)
        if deleted:
            world.post(did.DeletionRequested(world.now, 0))
            world.settle()
        else:
            world.pass_time(0.2)
        removed = {effect.container for effect in world.issued(do.RemoveContainer)}
        assert removed == ({"i0", "i1", "a0"} if deleted else {"i0", "i1"})
        assert world.state.gone == deleted


def test_a_failed_init_container_with_never_fails_the_pod_and_starts_no_app() -> None:
    world = World(make_pod(init=2, policy="Never"))
    world.run()
    world.exit("i0", 7)
    world.settle()
    assert world.status.phase == "Failed"
    assert not world.alive
    assert not [e for e in world.issued(do.CreateContainer) if e.container != "i0"]
    assert world.issued(do.RemoveSandbox)


def test_a_failed_init_container_is_retried_with_back_off() -> None:
    world = World(make_pod(init=1))
    world.run()
    world.exit("i0", 1)
    world.settle()
    world.exit("i0", 1)
    world.settle()
    assert not world.alive
    world.pass_time(9)
    assert not world.alive
    world.pass_time(1.5)
    assert world.alive == {"i0": 2}
    assert world.status.phase == "Pending"


def test_an_apps_restart_does_not_rerun_init_containers() -> None:
    world = World(make_pod(init=1))
    world.run()
    world.exit("i0", 0)
    world.settle()
    world.exit("a0", 1)
    world.settle()
    assert [e.container for e in world.issued(do.StartContainer)] == ["i0", "a0", "a0"]
