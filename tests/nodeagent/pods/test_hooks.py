"""Scripts for postStart and preStop: what they hold up, what their failure does, and what the next agent does."""

from __future__ import annotations

import pytest

from nodeagent.pods import effects as do
from nodeagent.pods import events as did
from nodeagent.pods.codec import decode, encode
from nodeagent.types import ContainerFound
from podplane.v1.pod_pb2 import ContainerStatus
from tests.nodeagent.pods.world import World, make_pod


def world_with(*hooks: str, apps: int = 1, policy: str = "Always", grace: int = 30) -> World:
    """A pod whose first container has these hooks, started up to what its postStart holds up."""
    pod = make_pod(apps=apps, policy=policy, terminationGracePeriodSeconds=grace)
    for name in hooks:
        getattr(pod.spec.containers[0].lifecycle, name).exec.command.append("true")
    world = World(pod)
    world.post(did.PodAdmitted(world.now))
    world.settle(unless=is_hook)
    return world


def is_hook(effect: do.Effect) -> bool:
    return isinstance(effect, do.RunHook)


def running_hooks(world: World) -> list[str]:
    return [effect.hook for effect in world.pending if isinstance(effect, do.RunHook)]


def fails(world: World, hook: str) -> None:
    world.pending = [effect for effect in world.pending if not is_hook(effect)]
    world.post(did.HookEnded(world.now, "a0", world.state.apps[0].attempt, hook, "exit 3", "it said: no"))


def first(world: World) -> ContainerStatus:
    return world.status.containerStatuses[0]


def dies(world: World, *, hook: bool = True) -> None:
    """The agent is killed and the next one takes over from the journal."""
    world.pending.clear()
    world.state = decode(encode(world.state), world.state.pod)
    found = {(n, a): ContainerFound(f"uid-1_{n}_{a}", "uid-1", n, a, "running", 7, True, None)
             for n, a in world.alive.items()}  # fmt: skip
    world.post(did.AgentRestarted(world.now, False, True, found))


def test_a_container_waits_and_holds_up_the_next_until_its_post_start_is_over() -> None:
    world = world_with("postStart", apps=2)
    assert world.alive == {"a0": 0}
    assert first(world).state.waiting.reason == "ContainerCreating"
    assert (world.status.phase, first(world).started, first(world).ready) == ("Pending", False, False)
    world.settle()
    assert world.alive == {"a0": 0, "a1": 0}
    assert first(world).state.HasField("running")
    assert world.status.phase == "Running"


def test_a_failed_post_start_kills_the_container_which_is_started_again_with_back_off() -> None:
    world = world_with("postStart", apps=2)
    fails(world, "postStart")
    assert "FailedPostStartHook: PostStartHook failed: exit 3" in world.told
    assert world.issued(do.SignalContainer) == [do.SignalContainer("a0", 0)]
    assert (first(world).state.waiting.reason, first(world).state.waiting.message) == (
        "PostStartHookError",
        "it said: no",
    )
    world.settle(unless=is_hook)
    assert "a1" in world.alive  # it need not wait for a container that failed
    world.exit("a0", 143)
    assert first(world).state.waiting.reason == "PostStartHookError"
    assert first(world).lastState.terminated.exitCode == 143
    world.settle(unless=is_hook)
    assert world.alive["a0"] == 1
    assert first(world).state.waiting.reason == "PostStartHookError"  # until the next instance is through with it
    fails(world, "postStart")
    world.exit("a0", 143)
    world.pass_time(2)
    assert first(world).state.waiting.reason == "CrashLoopBackOff"
    world.pass_time(10)
    assert first(world).state.HasField("running")
    assert first(world).restartCount == 2


@pytest.mark.parametrize(("policy", "phase"), [("Never", "Failed"), ("OnFailure", "Pending"), ("Always", "Pending")])
def test_the_policy_decides_after_a_failed_post_start(policy: str, phase: str) -> None:
    world = world_with("postStart", policy=policy)
    fails(world, "postStart")
    world.exit("a0", 137)
    world.settle(unless=is_hook)
    assert world.status.phase == ("Running" if phase == "Pending" else phase)
    assert ("a0" in world.alive) == (policy != "Never")
    if policy == "Never":
        assert first(world).state.terminated.exitCode == 137


def test_a_container_that_ends_during_its_post_start_has_just_ended() -> None:
    world = world_with("postStart", policy="Never")
    world.exit("a0", 4)
    world.settle()
    assert do.CancelHook("a0") in world.done
    assert not world.issued(do.SignalContainer)
    assert first(world).state.terminated.exitCode == 4
    assert first(world).state.terminated.startedAt == first(world).state.terminated.finishedAt
    assert world.status.phase == "Failed"


def test_pre_stop_runs_to_its_end_before_sigterm_within_the_same_grace() -> None:
    world = world_with("preStop")
    world.post(did.DeletionRequested(world.now, 30))
    world.pending = [effect for effect in world.pending if is_hook(effect)]
    world.now += 10
    world.post(did.TimePassed(world.now))
    assert not world.issued(do.SignalContainer)
    world.settle()
    assert world.issued(do.SignalContainer) == [do.SignalContainer("a0", 0)]
    world.pass_time(19.9)
    assert not world.issued(do.KillContainer)
    world.pass_time(0.2)
    assert world.issued(do.KillContainer) == [do.KillContainer("a0", 0)]


def test_a_pre_stop_that_takes_the_whole_grace_leaves_two_seconds_for_sigterm() -> None:
    world = world_with("preStop")
    world.post(did.DeletionRequested(world.now, 5))
    hold = next(effect for effect in world.pending if isinstance(effect, do.RunHook))
    world.pending.clear()
    world.pass_time(4.9)
    assert not world.issued(do.SignalContainer)
    world.pass_time(0.2)
    assert do.CancelHook("a0") in world.done
    assert "FailedPreStopHook: PreStopHook failed: it was not over when the grace period was" in world.told
    assert world.issued(do.SignalContainer) == [do.SignalContainer("a0", 0)]
    assert not world.issued(do.KillContainer)
    world.pass_time(1.8)
    assert not world.issued(do.KillContainer)
    world.post(did.HookEnded(world.now, "a0", 0, hold.hook, "late"))  # cancelled: it says nothing any more
    world.pass_time(0.2)
    assert world.state.gone


def test_a_failed_pre_stop_is_told_and_sigterm_follows() -> None:
    world = world_with("preStop")
    world.post(did.DeletionRequested(world.now, 30))
    fails(world, "preStop")
    world.settle()
    assert "FailedPreStopHook: PreStopHook failed: exit 3" in world.told
    assert world.issued(do.SignalContainer) == [do.SignalContainer("a0", 0)]


def test_without_grace_there_is_no_pre_stop() -> None:
    world = world_with("preStop")
    world.post(did.DeletionRequested(world.now, 0))
    world.settle()
    assert world.issued(do.RunHook) == []
    assert world.issued(do.SignalContainer) == []
    assert world.state.gone


def test_a_deletion_that_comes_later_and_is_shorter_cuts_pre_stop_off() -> None:
    world = world_with("preStop")
    world.post(did.DeletionRequested(world.now, 30))
    world.post(did.DeletionRequested(world.now, 0))
    assert world.issued(do.SignalContainer) == [do.SignalContainer("a0", 0)]
    assert running_hooks(world) == []
    world.pass_time(2.1)
    assert world.state.gone


def test_a_liveness_kill_and_a_new_image_run_pre_stop_as_well() -> None:
    world = world_with("preStop")
    world.state.pod.spec.containers[0].livenessProbe.exec.command.append("x")
    world.post(did.ProbeFailed(world.now, "a0", 0, "liveness", "ill", enough=True))
    assert running_hooks(world) == ["preStop"]
    world.settle()
    assert world.issued(do.SignalContainer) == [do.SignalContainer("a0", 0)]
    world.exit("a0", 0)
    world.settle()
    assert world.alive == {"a0": 1}
    changed = type(world.state.pod).FromString(world.state.pod.SerializeToString())
    changed.spec.containers[0].image = "other"
    world.post(did.SpecChanged(world.now, changed))
    assert running_hooks(world) == ["preStop"]
    world.settle()
    assert world.issued(do.SignalContainer)[-1] == do.SignalContainer("a0", 1)


def test_deletion_during_post_start_cancels_it_and_stops_the_container() -> None:
    world = world_with("postStart", "preStop")
    world.post(did.DeletionRequested(world.now, 30))
    assert do.CancelHook("a0") in world.done
    assert running_hooks(world) == ["preStop"]
    world.settle()
    assert world.issued(do.SignalContainer) == [do.SignalContainer("a0", 0)]


def test_a_post_start_under_way_is_run_again_by_the_next_agent_and_a_finished_one_is_not() -> None:
    world = world_with("postStart")
    since = world.state.apps[0].hook_at
    world.now += 3
    dies(world)
    assert [effect for effect in world.pending if is_hook(effect)] == [do.RunHook("a0", 0, "postStart", since)]
    world.settle()
    assert first(world).state.HasField("running")
    dies(world)
    assert running_hooks(world) == []


def test_a_pre_stop_under_way_is_run_again_within_the_same_grace() -> None:
    world = world_with("preStop")
    world.post(did.DeletionRequested(world.now, 30))
    killing = [words for words in world.told if words.startswith("Killing")]
    world.now += 20
    dies(world)
    assert running_hooks(world) == ["preStop"]
    assert world.state.kill_at == world.now + 10
    assert [words for words in world.told if words.startswith("Killing")] == killing
    world.settle()
    assert world.issued(do.SignalContainer) == [do.SignalContainer("a0", 0)]
    dies(world)
    assert running_hooks(world) == []
    assert do.SignalContainer("a0", 0) in world.pending  # it may have been written down and not sent
