"""Probes: scripts in virtual time for what results mean."""

from __future__ import annotations

import pytest

from nodeagent.pods import effects as do
from nodeagent.pods import events as did
from nodeagent.pods import probes
from nodeagent.pods.codec import decode, encode
from nodeagent.types import ContainerFound
from podplane.v1.container_pb2 import Probe
from tests.nodeagent.pods.world import World, make_pod


def world_with(policy: str = "Always", **made: Probe) -> World:
    pod = make_pod(policy=policy)
    for name, probe in made.items():
        getattr(pod.spec.containers[0], f"{name}Probe").CopyFrom(probe)
    world = World(pod)
    world.run()
    return world


def command(**fields: int) -> Probe:
    probe = Probe(**fields)  # type: ignore[arg-type]
    probe.exec.command.append("true")
    return probe


def kinds(world: World) -> set[str]:
    return {kind for _, _, kind in probes.wanted(world.state)}


def passes(world: World, kind: str, attempt: int = 0) -> None:
    world.post(did.ProbePassed(world.now, "a0", attempt, kind))


def fails(world: World, kind: str, *, enough: bool = True, attempt: int = 0) -> None:
    world.post(did.ProbeFailed(world.now, "a0", attempt, kind, f"{kind} failed: x", enough))


def ready(world: World) -> bool:
    return {c.type: c.status for c in world.status.conditions}["Ready"] == "True"


def test_a_container_is_ready_when_its_readiness_probe_says_so_and_never_restarts_for_it() -> None:
    world = world_with(readiness=command())
    seen = [ready(world)]
    passes(world, "readiness")
    seen.append(ready(world))
    fails(world, "readiness", enough=False)
    seen.append(ready(world))
    fails(world, "readiness")
    seen.append(ready(world))
    assert seen == [False, True, True, False]
    world.settle()
    assert not world.issued(do.SignalContainer)
    assert world.told.count("Unhealthy: readiness failed: x") == 2


@pytest.mark.parametrize(("policy", "attempts"), [("Always", 1), ("OnFailure", 1), ("Never", 0)])
def test_a_failing_liveness_ends_the_container_which_the_policy_starts_again(policy: str, attempts: int) -> None:
    world = world_with(policy, liveness=command())
    fails(world, "liveness", enough=False)
    assert not world.issued(do.SignalContainer)
    fails(world, "liveness")
    assert world.issued(do.SignalContainer) == [do.SignalContainer("a0", 0)]
    words = "" if policy == "Never" else ", will be restarted"
    assert f"Killing: Container a0 failed liveness probe{words}" in world.told
    world.exit("a0", 0)  # it took SIGTERM well: still it is started again
    world.settle()
    world.pass_time(15)
    assert world.state.apps[0].attempt == attempts
    assert world.state.apps[0].restarts == attempts


def test_a_container_that_ignores_its_end_is_killed_after_the_probes_own_grace() -> None:
    world = world_with(liveness=command(terminationGracePeriodSeconds=3))
    fails(world, "liveness")
    world.settle()
    world.pass_time(2.9)
    assert not world.issued(do.KillContainer)
    world.pass_time(0.2)
    assert world.issued(do.KillContainer) == [do.KillContainer("a0", 0)]


def test_a_startup_probe_holds_the_others_back() -> None:
    world = world_with(startup=command(), liveness=command(), readiness=command())
    assert kinds(world) == {"startup"}
    before = world.status.containerStatuses[0].started
    passes(world, "startup")
    assert kinds(world) == {"liveness", "readiness"}
    assert (before, world.status.containerStatuses[0].started) == (False, True)
    world.exit("a0", 1)
    world.settle()
    assert world.state.apps[0].attempt == 1
    assert kinds(world) == {"startup"}


def test_a_container_that_has_not_started_is_not_ready_even_without_a_readiness_probe() -> None:
    world = world_with(startup=command())
    before = ready(world)
    passes(world, "startup")
    assert (before, ready(world)) == (False, True)


def test_results_of_an_older_instance_say_nothing() -> None:
    world = world_with(readiness=command(), liveness=command())
    world.exit("a0", 1)
    world.settle()
    passes(world, "readiness", attempt=0)
    fails(world, "liveness", attempt=0)
    assert not ready(world)
    assert not world.issued(do.SignalContainer)


def test_a_pod_that_is_ending_is_asked_only_whether_it_is_ready() -> None:
    world = world_with(readiness=command(), liveness=command())
    world.post(did.DeletionRequested(world.now, 30))
    assert kinds(world) == {"readiness"}
    fails(world, "liveness")
    assert world.state.apps[0].doom == ""


def test_a_ready_container_stays_ready_over_a_restart_of_the_agent() -> None:
    world = world_with(readiness=command(), startup=command())
    passes(world, "startup")
    passes(world, "readiness")
    world.state = decode(encode(world.state), world.state.pod)
    found = ContainerFound("uid-1_a0_0", "uid-1", "a0", 0, "running", 7, True, None)
    world.post(did.AgentRestarted(world.now, False, True, {("a0", 0): found}))
    assert ready(world)
    assert kinds(world) == {"readiness"}


def test_verdicts_need_as_many_equal_results_in_a_row_as_the_thresholds_say() -> None:
    run = probes.Run(command(successThreshold=2, failureThreshold=3))
    results = [False, False, True, False, False, False, True, True]
    assert [run.judge(result) for result in results] == [None, None, None, None, None, False, None, True]


def test_the_first_probe_waits_for_the_initial_delay_from_the_start_on() -> None:
    probe = command(initialDelaySeconds=5)
    assert probes.first_in(probe, 100.0, 102.0) == 3.0
    assert probes.first_in(probe, 100.0, 200.0) == 0.0
    assert probes.first_in(probe, 100.0, 10.0) == 5.0  # the clock was set back
