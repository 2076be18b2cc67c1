"""What the machine makes of what an earlier agent left: each of its states held against what is found on the node."""

from __future__ import annotations

from nodeagent.pods import effects as do
from nodeagent.pods import events as did
from nodeagent.types import ContainerExit, ContainerFound
from tests.nodeagent.pods.world import World, make_pod


def found(name: str, attempt: int, state: str, *, conmon: bool = True, code: int | None = None) -> ContainerFound:
    id_ = f"uid-1_{name}_{attempt}"
    end = ContainerExit(id_, code, False, 1_000_000.0) if state == "stopped" else None
    return ContainerFound(id_, "uid-1", name, attempt, state, 7, conmon, end)


def test_an_agent_restart_changes_nothing_for_a_running_container() -> None:
    world = World(make_pod())
    world.run()
    before = world.status
    world.post(did.AgentRestarted(world.now, False, True, {("a0", 0): found("a0", 0, "running")}))
    assert world.pending == [do.PrepareVolumes()]
    world.settle()
    assert world.status == before


def test_an_exit_while_the_agent_was_down_is_recorded_with_its_code_and_policy_applied_once() -> None:
    world = World(make_pod())
    world.run()
    world.alive.clear()
    world.post(did.AgentRestarted(world.now, False, True, {("a0", 0): found("a0", 0, "stopped", code=7)}))
    world.settle()
    assert world.alive == {"a0": 1}
    assert world.status.containerStatuses[0].lastState.terminated.exitCode == 7


def test_a_created_container_with_a_live_conmon_is_started_once() -> None:
    world = World(make_pod())
    world.post(did.PodAdmitted(world.now))
    world.settle(unless=lambda effect: isinstance(effect, do.StartContainer))
    world.pending.clear()
    world.post(did.AgentRestarted(world.now, False, True, {("a0", 0): found("a0", 0, "created")}))
    assert do.StartContainer("a0", 0) in world.pending


def test_a_created_container_without_conmon_is_removed_and_made_anew_without_counting_a_restart() -> None:
    world = World(make_pod())
    world.post(did.PodAdmitted(world.now))
    world.settle(unless=lambda effect: isinstance(effect, do.StartContainer))
    world.pending.clear()
    gone = {("a0", 0): found("a0", 0, "created", conmon=False)}
    world.post(did.AgentRestarted(world.now, False, True, gone))
    # What was being started may have run: it is recorded as unknown only where there is no trace of it.
    world.settle()
    assert do.RemoveContainer("a0", 0) in world.done
    assert world.alive == {"a0": 1}


def test_a_running_container_without_conmon_is_killed_and_its_end_is_unknown() -> None:
    world = World(make_pod(policy="Never"))
    world.run()
    orphan = {("a0", 0): found("a0", 0, "running", conmon=False)}
    world.post(did.AgentRestarted(world.now, False, True, orphan))
    assert do.KillContainer("a0", 0) in world.pending
    terminated = world.status.containerStatuses[0].state.terminated
    assert (terminated.reason, terminated.exitCode) == ("ContainerStatusUnknown", 137)


def test_a_reboot_ends_instances_as_unknown_and_starts_the_pod_again() -> None:
    world = World(make_pod(init=1))
    world.run()
    world.exit("i0", 0)
    world.settle()
    world.alive.clear()
    world.post(did.AgentRestarted(world.now, True, False, {}))
    world.settle()
    assert world.alive == {"i0": 1}
    world.exit("i0", 0)
    world.settle()
    container = world.status.containerStatuses[0]
    assert container.restartCount == 1
    assert container.lastState.terminated.reason == "ContainerStatusUnknown"


def test_after_a_reboot_a_pod_that_is_never_restarted_has_failed() -> None:
    world = World(make_pod(policy="Never"))
    world.run()
    world.alive.clear()
    world.post(did.AgentRestarted(world.now, True, False, {}))
    world.settle()
    assert world.status.phase == "Failed"
    assert len(world.issued(do.CreateSandbox)) == 1
