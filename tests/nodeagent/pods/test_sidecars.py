"""Scripts for sidecars (init containers with restartPolicy Always): order, restarts, statuses, and their end."""

from __future__ import annotations

import pytest

from nodeagent.pods import effects as do
from nodeagent.pods import events as did
from nodeagent.pods import probes
from nodeagent.pods.codec import decode, encode
from nodeagent.pods.recovery import Reality, rebuilt
from nodeagent.types import ContainerFound
from podplane.statuses import ready, restarts, shown
from podplane.v1.pod_pb2 import Pod
from tests.nodeagent.pods.world import World, make_pod


def world_with(kinds: str, policy: str = "Always", apps: int = 1, *, startup: bool = False, grace: int = 30) -> World:
    """A pod whose init containers are sidecars (s) or plain (i), in that order; `startup`: with such probes."""
    pod = make_pod(apps=apps, init=len(kinds), policy=policy, terminationGracePeriodSeconds=grace)
    for container, kind in zip(pod.spec.initContainers, kinds, strict=True):
        if kind == "s":
            container.restartPolicy = "Always"
            if startup:
                container.startupProbe.exec.command.append("true")
    world = World(pod)
    world.run()
    return world


def passes(world: World, name: str, probe: str = "startup") -> None:
    world.post(did.ProbePassed(world.now, name, world.state.container(name).attempt, probe))
    world.settle()


def column(world: World) -> tuple[str, str]:
    """STATUS and READY as `podctl get pods` prints them."""
    pod = Pod()
    pod.CopyFrom(world.state.pod)
    pod.status.CopyFrom(world.status)
    return shown(pod), str(ready(pod))


def condition(world: World, type_: str) -> tuple[str, str, str]:
    found = next(item for item in world.status.conditions if item.type == type_)
    return found.status, found.reason, found.message


def dies(world: World) -> None:
    world.pending.clear()
    world.state = decode(encode(world.state), world.state.pod)
    found = {(n, a): ContainerFound(f"uid-1_{n}_{a}", "uid-1", n, a, "running", 7, True, None)
             for n, a in world.alive.items()}  # fmt: skip
    world.post(did.AgentRestarted(world.now, False, True, found))
    world.settle()


def test_sidecars_are_started_in_order_and_run_along_with_the_apps() -> None:
    world = world_with("sis")
    assert world.alive == {"i0": 0, "i1": 0}
    assert column(world) == ("Init:1/3", "1/3")
    world.exit("i1", 0)
    world.settle()
    assert world.alive == {"i0": 0, "i2": 0, "a0": 0}
    assert column(world) == ("Running", "3/3")
    assert [e.container for e in world.issued(do.StartContainer)] == ["i0", "i1", "i2", "a0"]


def test_a_startup_probe_of_a_sidecar_holds_back_what_comes_after_it() -> None:
    world = world_with("si", startup=True)
    assert world.alive == {"i0": 0}
    assert column(world) == ("Init:0/2", "0/2")
    assert set(probes.wanted(world.state)) == {("i0", 0, "startup")}
    assert condition(world, "Initialized") == (
        "False",
        "ContainersNotInitialized",
        "containers with incomplete status: [i0 i1]",
    )
    passes(world, "i0")
    assert world.alive == {"i0": 0, "i1": 0}
    assert world.status.initContainerStatuses[0].started
    world.exit("i1", 0)
    world.settle()
    assert condition(world, "Initialized")[0] == "True"
    assert column(world) == ("Running", "2/2")


@pytest.mark.parametrize("policy", ["Always", "OnFailure", "Never"])
@pytest.mark.parametrize("code", [0, 1])
def test_a_sidecar_is_always_restarted_and_nothing_else_with_it(policy: str, code: int) -> None:
    world = world_with("s", policy)
    world.exit("i0", code)
    assert column(world)[1] == "1/2"
    assert condition(world, "Ready") == ("False", "ContainersNotReady", "containers with unready status: [i0]")
    assert condition(world, "Initialized")[0] == "True"
    assert world.status.phase == "Running"
    world.settle()
    assert world.alive == {"i0": 1, "a0": 0}
    assert condition(world, "Ready")[0] == "True"
    pod = Pod(spec=world.state.pod.spec, status=world.status)
    assert restarts(pod).total == 1


def test_a_sidecar_that_crashes_before_it_has_started_holds_up_the_pod_even_with_never() -> None:
    world = world_with("s", "Never", startup=True)
    world.exit("i0", 1)
    world.settle()
    world.exit("i0", 1)
    world.pass_time(2)
    assert column(world) == ("Init:CrashLoopBackOff", "0/2")
    assert world.status.phase == "Pending"
    world.pass_time(10)
    assert world.alive == {"i0": 2}


def test_a_sidecar_that_restarts_while_a_later_init_container_runs_does_not_disturb_it() -> None:
    world = world_with("si", startup=True)
    passes(world, "i0")
    world.exit("i0", 1)
    world.settle()
    assert world.alive == {"i0": 1, "i1": 0}
    assert condition(world, "Initialized")[2] == "containers with incomplete status: [i0 i1]"
    world.exit("i1", 0)
    world.settle()
    assert "a0" in world.alive


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (3, "Failed")])
def test_sidecars_do_not_keep_a_pod_from_completing_and_are_stopped_in_reverse(code: int, phase: str) -> None:
    world = world_with("ss", "Never")
    world.exit("a0", code)
    assert world.status.phase == "Running"  # until the last sidecar has ended, as with the kubelet
    assert world.issued(do.SignalContainer) == [do.SignalContainer("i1", 0)]
    world.exit("i1", 143)
    assert world.issued(do.SignalContainer) == [do.SignalContainer("i1", 0), do.SignalContainer("i0", 0)]
    world.exit("i0", 0)
    world.settle()
    assert world.status.phase == phase
    assert not world.alive
    assert column(world)[0] == ("Completed" if code == 0 else "Error")
    assert world.status.initContainerStatuses[1].state.terminated.exitCode == 143
    world.pass_time(600)
    assert not world.alive


def test_a_failed_init_container_ends_the_sidecars_before_it() -> None:
    world = world_with("si", "Never")
    world.exit("i1", 1)
    assert world.issued(do.SignalContainer) == [do.SignalContainer("i0", 0)]
    world.exit("i0", 0)
    world.settle()
    assert (world.status.phase, column(world)[0]) == ("Failed", "Init:Error")
    assert not [e for e in world.issued(do.CreateContainer) if e.container == "a0"]


def test_on_deletion_sidecars_outlive_the_apps_and_pre_stop_does_not_wait_for_their_turn() -> None:
    world = world_with("ss", apps=2)
    for container in (world.state.init[0], world.state.apps[0]):
        container.pre_stop = True
    world.post(did.DeletionRequested(world.now, 30))
    assert {(e.container, e.hook) for e in world.issued(do.RunHook)} == {("i0", "preStop"), ("a0", "preStop")}
    assert [e.container for e in world.issued(do.SignalContainer)] == ["a1"]
    world.settle()
    assert [e.container for e in world.issued(do.SignalContainer)] == ["a1", "a0"]
    world.exit("a0", 0)
    world.exit("a1", 0)
    assert [e.container for e in world.issued(do.SignalContainer)] == ["a1", "a0", "i1"]
    world.exit("i1", 0)
    assert [e.container for e in world.issued(do.SignalContainer)] == ["a1", "a0", "i1", "i0"]


def test_a_sidecar_that_waits_for_its_turn_to_the_end_of_the_grace_still_gets_two_seconds() -> None:
    world = world_with("s")
    world.post(did.DeletionRequested(world.now, 5))
    world.pending.clear()
    world.pass_time(5)
    assert do.KillContainer("a0", 0) in world.done
    assert do.SignalContainer("i0", 0) in world.done
    assert "i0" in world.alive
    world.pass_time(2)
    assert world.state.gone


def test_the_next_agent_goes_on_with_sidecars_where_the_last_one_was() -> None:
    world = world_with("si", "Never", startup=True)
    passes(world, "i0")
    dies(world)
    assert world.alive == {"i0": 0, "i1": 0}
    world.exit("i1", 0)
    world.settle()
    world.exit("a0", 0)
    world.settle()
    assert world.state.stopping == "completed"
    dies(world)
    assert world.issued(do.SignalContainer)[-1] == do.SignalContainer("i0", 0)
    world.exit("i0", 143)
    world.settle()
    assert world.status.phase == "Succeeded"


def test_without_a_journal_what_runs_says_how_far_the_pod_had_come() -> None:
    pod = world_with("sisi").state.pod
    found = [ContainerFound(f"uid-1_{n}_0", "uid-1", n, 0, "running", 7, True, None) for n in ("i2", "i3")]
    world = World(pod)
    world.state = rebuilt(pod, Reality(containers={"uid-1": found}))
    world.state.sandbox.stage = "ready"
    world.alive = {"i2": 0, "i3": 0}
    world.post(did.AgentRestarted(world.now, False, True, {(f.name, 0): f for f in found}))
    world.settle()
    assert world.alive == {"i0": 0, "i2": 0, "i3": 0}
    world.exit("i3", 0)
    world.settle()
    assert "a0" in world.alive
