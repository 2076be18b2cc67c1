"""Scripts for the pod machine: what happens, and what is therefore done."""

from __future__ import annotations

import pytest

from nodeagent.pods import effects as do
from nodeagent.pods import events as did
from nodeagent.pods.machine import IllegalStep, wake_at
from nodeagent.pods.state import PULLING
from podplane.v1.pod_pb2 import Pod
from tests.nodeagent.pods.world import World, make_pod


def test_a_pod_starts_its_sandbox_volumes_and_first_images_at_the_same_time() -> None:
    world = World(make_pod(apps=2))
    world.post(did.PodAdmitted(world.now))
    assert [type(effect) for effect in world.pending] == [
        do.TakeAddress,
        do.PrepareVolumes,
        do.PullImage,
        do.PullImage,
    ]


def test_a_pod_without_volumes_has_none_made_and_none_removed() -> None:
    pod = make_pod()
    del pod.spec.volumes[:]
    world = World(pod)
    world.run()
    assert "a0" in world.alive
    world.post(did.DeletionRequested(world.now, 0))
    world.settle()
    assert world.state.gone
    assert not world.issued(do.PrepareVolumes)
    assert not world.issued(do.RemoveVolumes)


def test_an_address_that_came_with_the_admission_is_not_asked_for() -> None:
    world = World(make_pod())
    world.post(did.PodAdmitted(world.now, "10.0.0.9"))
    assert do.CreateSandbox(0, "10.0.0.9") in world.pending
    assert not world.issued(do.TakeAddress)
    world.settle()
    assert world.status.podIP == "10.0.0.9"
    world.post(did.DeletionRequested(world.now, 0.0))
    world.settle()
    assert world.issued(do.ReleaseAddress) == [do.ReleaseAddress("10.0.0.9")]


def test_the_second_app_starts_after_the_first_has_started() -> None:
    world = World(make_pod(apps=2))
    world.post(did.PodAdmitted(world.now))
    world.settle(unless=lambda effect: effect == do.StartContainer("a0", 0))
    assert not [e for e in world.issued(do.CreateContainer) if e.container == "a1"]
    world.settle()
    assert world.alive == {"a0": 0, "a1": 0}


def test_an_app_whose_image_is_missing_does_not_hold_back_the_next() -> None:
    world = World(make_pod(apps=2))
    world.post(did.PodAdmitted(world.now))
    world.pending.remove(do.PullImage("a0", "host"))
    world.post(did.ImageFailed(world.now, "a0", "ErrImagePull", "manifest unknown"))
    world.settle()
    assert world.alive == {"a1": 0}
    assert world.status.phase == "Pending"


def test_a_pull_backs_off_ten_seconds_doubling_to_three_hundred() -> None:
    world = World(make_pod(image="r/x"))
    world.post(did.PodAdmitted(world.now))
    waits = []
    for _ in range(7):
        world.settle(unless=lambda effect: isinstance(effect, do.PullImage))
        world.pending.remove(do.PullImage("a0", "r/x"))
        failed = world.now
        world.post(did.ImageFailed(world.now, "a0", "ErrImagePull", "no"))
        assert world.status.containerStatuses[0].state.waiting.reason == "ErrImagePull"
        while do.PullImage("a0", "r/x") not in world.pending:
            due = wake_at(world.state, world.now)
            assert due is not None
            world.now = due
            world.post(did.TimePassed(due))
        waits.append(world.now - failed)
        assert any(s.containerStatuses[0].state.waiting.reason == "ImagePullBackOff" for s in world.statuses)
    assert waits == [10, 20, 40, 80, 160, 300, 300]


def test_a_back_off_shows_the_last_error_and_the_next_try() -> None:
    world = World(make_pod(image="r/x"))
    world.post(did.PodAdmitted(world.now))
    world.post(did.ImageFailed(1_000_000.0, "a0", "RegistryUnavailable", 'failed to pull image "r/x": refused'))
    waiting = world.status.containerStatuses[0].state.waiting
    assert (waiting.reason, waiting.message) == ("RegistryUnavailable", 'failed to pull image "r/x": refused')
    world.post(did.TimePassed(1_000_002.0))
    waiting = world.status.containerStatuses[0].state.waiting
    assert waiting.reason == "ImagePullBackOff"
    assert waiting.message == (
        'Back-off pulling image "r/x": RegistryUnavailable: failed to pull image "r/x": refused; '
        "next try at 1970-01-12T13:46:50Z"
    )
    assert world.told == [
        'Failed: Failed to pull image "r/x": refused',
        "Failed: Error: RegistryUnavailable",
        'BackOff: Back-off pulling image "r/x"',
        "Failed: Error: ImagePullBackOff",
    ]


def test_progress_of_a_pull_is_shown_and_takes_the_place_of_its_failure() -> None:
    world = World(make_pod(image="r/x"))
    world.post(did.PodAdmitted(world.now))
    words = 'Pulling image "r/x": 1.0 MiB of 9.0 MiB'
    world.post(did.ImagePulling(world.now, "a0", words))
    waiting = world.status.containerStatuses[0].state.waiting
    assert (waiting.reason, waiting.message) == ("ContainerCreating", words)
    world.post(did.ImageFailed(1_000_000.0, "a0", "ErrImagePull", "no"))
    world.post(did.ImagePulling(world.now, "a0", words))  # late: there is no pull any more
    assert world.status.containerStatuses[0].state.waiting.reason == "ErrImagePull"
    world.post(did.TimePassed(1_000_020.0))
    world.post(did.ImagePulling(world.now, "a0", words))
    assert world.status.containerStatuses[0].state.waiting.reason == "ContainerCreating"


def test_the_status_names_the_image_in_full_once_it_is_there() -> None:
    world = World(make_pod(image="nginx"))
    world.post(did.PodAdmitted(world.now))
    assert (world.status.containerStatuses[0].image, world.status.containerStatuses[0].imageID) == ("nginx", "")
    digest, name = "docker.io/library/nginx@sha256:1", "docker.io/library/nginx:latest"
    world.post(did.ImageReady(world.now, "a0", "sha256:2", digest, name, ""))
    assert (world.status.containerStatuses[0].image, world.status.containerStatuses[0].imageID) == (name, digest)


@pytest.mark.parametrize(
    ("policy", "code", "phase", "restarts"),
    [
        ("Always", 0, "Running", 1),
        ("Always", 1, "Running", 1),
        ("OnFailure", 0, "Succeeded", 0),
        ("OnFailure", 1, "Running", 1),
        ("Never", 0, "Succeeded", 0),
        ("Never", 1, "Failed", 0),
    ],
)
def test_restart_policy_decides_by_exit_code(policy: str, code: int, phase: str, restarts: int) -> None:
    world = World(make_pod(policy=policy))
    world.run()
    world.exit("a0", code)
    world.settle()
    assert world.status.phase == phase
    assert world.status.containerStatuses[0].restartCount == restarts
    assert ("a0" in world.alive) == (phase == "Running")


def test_restarts_back_off_and_ten_healthy_minutes_forget_it() -> None:
    world = World(make_pod())
    world.run()
    waits = []
    for _ in range(8):
        crashed = world.now
        world.exit("a0", 1)
        world.settle()
        while "a0" not in world.alive:
            due = wake_at(world.state, world.now)
            assert due is not None
            world.now = due
            world.post(did.TimePassed(due))
            world.settle()
        waits.append(world.now - crashed)
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]
    world.pass_time(601)
    world.exit("a0", 1)
    world.settle()
    assert world.alive == {"a0": 9}


def test_crash_loop_back_off_is_shown_with_the_kubelets_words() -> None:
    world = World(make_pod())
    world.run()
    world.exit("a0", 1)
    world.settle()
    world.exit("a0", 3)
    world.settle()
    assert world.status.containerStatuses[0].state.terminated.exitCode == 3
    world.pass_time(1.5)
    container = world.status.containerStatuses[0]
    assert container.state.waiting.reason == "CrashLoopBackOff"
    assert container.state.waiting.message == (
        "back-off 10s restarting failed container=a0 pod=web_default(uid-1); "
        "last exit: Error, exit code 3; next try at 1970-01-12T13:46:50Z"
    )
    assert container.lastState.terminated.exitCode == 3
    assert container.restartCount == 1
    assert world.status.phase == "Running"
    world.now += 8.5
    world.post(did.TimePassed(world.now))
    assert world.state.container("a0").stage == PULLING  # the next try is under way, and nothing new to be told
    assert world.status.containerStatuses[0].state.waiting == container.state.waiting


@pytest.mark.parametrize(
    ("code", "oom", "reason", "phase"),
    [(0, False, "Completed", "Succeeded"), (1, False, "Error", "Failed"), (137, True, "OOMKilled", "Failed"),
     (3, True, "OOMKilled", "Failed"), (0, True, "Completed", "Succeeded")],
)  # fmt: skip
def test_the_reason_of_an_end_says_what_the_phase_does(code: int, oom: bool, reason: str, phase: str) -> None:
    world = World(make_pod(policy="Never"))
    world.run()
    world.exit("a0", code, oom=oom)
    world.settle()
    end = world.status.containerStatuses[0].state.terminated
    assert (end.reason, end.exitCode, world.status.phase) == (reason, code, phase)


def test_out_of_memory_is_shown_as_oom_killed() -> None:
    world = World(make_pod(policy="Never"))
    world.run()
    world.exit("a0", 137, oom=True)
    assert world.status.containerStatuses[0].state.terminated.reason == "OOMKilled"


def test_a_container_that_cannot_start_ends_with_start_error_128() -> None:
    world = World(make_pod(policy="Never"))
    world.post(did.PodAdmitted(world.now))
    world.settle(unless=lambda effect: isinstance(effect, do.StartContainer))
    world.pending.clear()
    world.post(did.ContainerStartFailed(world.now, "a0", 0, "no such file"))
    world.settle()
    terminated = world.status.containerStatuses[0].state.terminated
    assert (terminated.exitCode, terminated.reason, world.status.phase) == (128, "StartError", "Failed")


def test_a_container_that_cannot_start_waits_as_run_container_error_where_it_is_restarted() -> None:
    world = World(make_pod())
    world.post(did.PodAdmitted(world.now))
    world.settle(unless=lambda effect: isinstance(effect, do.CreateContainer))
    world.pending.clear()
    world.post(did.ContainerRefused(world.now, "a0", 0, "RunContainerError", "no such command"))
    container = world.status.containerStatuses[0]
    assert container.state.waiting.reason == "RunContainerError"
    assert container.lastState.terminated.reason == "StartError"


def test_a_missing_config_map_is_tried_again_as_soon_as_objects_change() -> None:
    world = World(make_pod())
    world.post(did.PodAdmitted(world.now))
    world.settle(unless=lambda effect: isinstance(effect, do.CreateContainer))
    world.pending.clear()
    world.post(did.ContainerRefused(world.now, "a0", 0, "CreateContainerConfigError", 'configmap "c" not found'))
    world.settle()
    assert world.status.containerStatuses[0].state.waiting.reason == "CreateContainerConfigError"
    world.post(did.ObjectsChanged(world.now))
    world.settle()
    assert world.alive == {"a0": 1}
    assert world.status.containerStatuses[0].restartCount == 0


def test_a_lost_sandbox_starts_everything_anew_init_containers_included() -> None:
    world = World(make_pod(init=1, terminationGracePeriodSeconds=0))
    world.run()
    world.exit("i0", 0)
    world.settle()
    world.post(did.SandboxLost(world.now, 0))
    world.settle()
    assert world.alive == {"i0": 1}
    assert [e.attempt for e in world.issued(do.CreateSandbox)] == [0, 1]
    assert any(words.startswith("SandboxChanged") for words in world.told)


def test_the_loss_of_an_earlier_sandbox_changes_nothing() -> None:
    world = World(make_pod(terminationGracePeriodSeconds=0))
    world.run()
    world.post(did.SandboxLost(world.now, 0))
    world.settle()
    told = list(world.told)
    world.post(did.SandboxLost(world.now, 0))
    world.settle()
    assert world.alive == {"a0": 1}
    assert world.told == told


@pytest.mark.parametrize("first", ["its containers", "the sandbox"])
@pytest.mark.parametrize(("policy", "alive", "phase"), [("Always", {"a0": 1}, "Running"), ("Never", {}, "Failed")])
def test_a_pod_whose_pause_process_was_killed_starts_anew_where_its_policy_says_so(
    first: str, policy: str, alive: dict[str, int], phase: str
) -> None:
    world = World(make_pod(policy=policy))
    world.run()
    if first == "the sandbox":
        world.post(did.SandboxLost(world.now, 0))
    world.exit("a0", 137)
    if first == "its containers":
        world.post(did.SandboxLost(world.now, 0))
    world.settle()
    assert (world.alive, world.status.phase) == (alive, phase)


def test_when_all_containers_are_done_no_new_sandbox_is_made() -> None:
    world = World(make_pod(policy="Never"))
    world.run()
    world.exit("a0", 0)
    world.settle()
    world.pass_time(600)
    assert len(world.issued(do.CreateSandbox)) == 1
    assert world.issued(do.RemoveSandbox)
    assert world.status.phase == "Succeeded"


def test_a_changed_image_restarts_that_container_alone() -> None:
    world = World(make_pod(apps=2, policy="Never"))
    world.run()
    changed = Pod()
    changed.CopyFrom(world.state.pod)
    changed.spec.containers[1].image = "other"
    world.post(did.SpecChanged(world.now, changed))
    assert world.issued(do.SignalContainer) == [do.SignalContainer("a1", 0)]
    world.exit("a1", 143)
    world.settle()
    assert world.alive == {"a0": 0, "a1": 1}
    assert world.status.containerStatuses[1].image == "other"
    assert world.status.containerStatuses[1].restartCount == 1


def test_a_change_of_metadata_does_nothing_to_containers() -> None:
    world = World(make_pod())
    world.run()
    changed = Pod()
    changed.CopyFrom(world.state.pod)
    changed.metadata.labels["a"] = "b"
    assert world.post(did.SpecChanged(world.now, changed)) == []


def test_a_refused_pod_fails_and_does_nothing() -> None:
    world = World(make_pod())
    world.post(did.PodRefused(world.now, "OutOfcpu", "no room"))
    assert (world.status.phase, world.status.reason) == ("Failed", "OutOfcpu")
    assert world.pending == []


def test_an_exit_told_twice_is_recorded_once() -> None:
    world = World(make_pod())
    world.run()
    event = did.ContainerExited(world.now, "a0", 0, 1, finished_at=world.now)
    world.alive.clear()
    world.post(event)
    world.post(event)
    world.settle()
    assert world.state.container("a0").exits == 1


def test_an_impossible_event_raises_with_the_pods_history() -> None:
    world = World(make_pod())
    world.run()
    with pytest.raises(IllegalStep, match="PodAdmitted"):
        world.post(did.SandboxReady(world.now, 0))
