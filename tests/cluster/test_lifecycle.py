"""How pods begin, end and end badly: policies, graces, deadlines and the statuses that people see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from podplane.kinds import POD
from podplane.statuses import shown
from podplane.v1 import pod_pb2
from tests.support.api import Api
from tests.support.objects import pod

STUBBORN = ("/usr/bin/python3", "-c", "import signal; signal.signal(15, signal.SIG_IGN)\nwhile True: signal.pause()")

Make = Callable[[pod_pb2.Pod], pod_pb2.Pod]


@pytest.fixture
def make(api: Api) -> Iterator[Make]:
    """Creates pods that are gone after the test."""
    names: list[str] = []

    def create(wanted: pod_pb2.Pod) -> pod_pb2.Pod:
        created: pod_pb2.Pod = api.create(wanted)
        names.append(created.metadata.name)
        return created

    yield create
    for name in names:
        if api.find(POD, name):
            api.delete(POD, name, grace=0)
    for name in names:
        api.gone(POD, name)


def main(found: pod_pb2.Pod) -> pod_pb2.ContainerStatus:
    return found.status.containerStatuses[0] if found.status.containerStatuses else pod_pb2.ContainerStatus()


@pytest.mark.parametrize(
    ("policy", "code", "phase"),
    [
        ("Never", 0, "Succeeded"),
        ("Never", 3, "Failed"),
        ("OnFailure", 0, "Succeeded"),
    ],
)
def test_a_pod_that_is_not_restarted_ends_in_a_phase(api: Api, make: Make, policy: str, code: int, phase: str) -> None:
    make(pod("ends", "/bin/sh", "-c", f"echo last words >/dev/termination-log; exit {code}", restartPolicy=policy))
    found = api.pod_when("ends", lambda found: found.status.phase == phase)
    end = main(found).state.terminated
    assert (end.exitCode, end.reason, end.message) == (code, "Error" if code else "Completed", "last words\n")
    assert main(found).restartCount == 0
    assert end.startedAt.ToNanoseconds() <= end.finishedAt.ToNanoseconds()


def test_the_end_of_the_log_is_the_message_of_who_fails_without_one(api: Api, make: Make) -> None:
    wanted = pod("wordless", "/bin/sh", "-c", "echo last words; exit 3", restartPolicy="Never")
    wanted.spec.containers[0].terminationMessagePolicy = "FallbackToLogsOnError"
    make(wanted)
    found = api.pod_when("wordless", lambda found: found.status.phase == "Failed")
    assert main(found).state.terminated.message == "last words\n"


@pytest.mark.parametrize(("policy", "code"), [("Always", 0), ("Always", 1), ("OnFailure", 1)])
def test_a_pod_that_is_restarted_backs_off(api: Api, make: Make, policy: str, code: int) -> None:
    make(pod("again", "/bin/sh", "-c", f"exit {code}", restartPolicy=policy))
    found = api.pod_when("again", lambda found: shown(found) == "CrashLoopBackOff" and main(found).restartCount >= 1)
    assert found.status.phase == "Running"
    assert main(found).lastState.terminated.exitCode == code
    message = main(found).state.waiting.message
    assert message.startswith("back-off 10s restarting failed container=main pod=again_")
    ended = "Completed" if code == 0 else "Error"
    assert f"; last exit: {ended}, exit code {code}; next try at " in message
    finished, tried = main(found).lastState.terminated.finishedAt, datetime.fromisoformat(message.rpartition(" ")[2])
    assert 9 <= tried.timestamp() - finished.ToNanoseconds() / 1e9 <= 10


@pytest.mark.deep
@pytest.mark.timeout(240)
def test_the_back_off_doubles_from_one_restart_to_the_next(api: Api, make: Make) -> None:
    watch = api.watch(POD, "default")
    try:
        make(pod("doubling", "/bin/sh", "-c", "exit 1"))
        api.pod_when("doubling", lambda found: main(found).restartCount == 4, seconds=150)
        found = api.pod_when("doubling", lambda found: shown(found) in ("Error", "CrashLoopBackOff"))
        ends = {}
        for event in watch.up_to(found):
            for state in (main(event.object).state.terminated, main(event.object).lastState.terminated):
                if state.containerID:
                    ends[state.containerID] = (seconds(state.startedAt), seconds(state.finishedAt))
    finally:
        watch.close()
    instances = sorted(ends.values())
    waits = [began - ended for (_, ended), (began, _) in pairwise(instances)]
    assert len(waits) == 4
    for wait, least in zip(waits, (0, 10, 20, 40), strict=True):
        assert least <= wait < least + 3, waits


def test_a_failed_init_container_is_run_again_before_anything_else(api: Api, make: Make) -> None:
    once = "echo tried; [ -e /dev/shm/tried ] || { touch /dev/shm/tried; exit 3; }"
    watch = api.watch(POD, "default")
    try:
        make(pod("retried", init=[["/bin/sh", "-c", once], ["/bin/true"]]))
        found = api.running("retried")
        first, second = found.status.initContainerStatuses
        assert (first.restartCount, first.lastState.terminated.exitCode) == (1, 3)
        assert (first.state.terminated.reason, first.state.terminated.exitCode) == ("Completed", 0)
        assert (second.restartCount, main(found).restartCount) == (0, 0)
        assert first.state.terminated.finishedAt.ToNanoseconds() <= second.state.terminated.startedAt.ToNanoseconds()
        seen = {shown(event.object) for event in watch.up_to(found)}
        assert seen >= {"Init:Error", "Init:1/2", "Running"}
    finally:
        watch.close()


def seconds(stamp: Any) -> float:
    return float(stamp.ToNanoseconds()) / 1e9


def test_a_failed_init_container_of_a_pod_without_restarts_fails_it(api: Api, make: Make) -> None:
    make(pod("stuck", init=[["/bin/false"], ["/bin/true"]], restartPolicy="Never"))
    found = api.pod_when("stuck", lambda found: found.status.phase == "Failed")
    assert shown(found) == "Init:Error"
    assert not main(found).state.HasField("running")
    assert not main(found).state.HasField("terminated") or main(found).state.terminated.exitCode != 0


@pytest.mark.parametrize(
    ("status", "image", "policy", "words"),
    [
        ("InvalidImageName", "UPPER//bad", "", "couldn't parse image name"),
        ("ErrImageNeverPull", "library/absent:1", "Never", "not present with pull policy of Never"),
        ("RegistryUnavailable", "127.0.0.1:9/absent:1", "", "connection refused"),
    ],
)
def test_an_image_that_cannot_be_had_is_said(
    api: Api, make: Make, status: str, image: str, policy: str, words: str
) -> None:
    watch = api.watch(POD, "default")
    try:
        wanted = pod("imageless", image=image)
        wanted.spec.containers[0].imagePullPolicy = policy
        make(wanted)
        seen = watch.wait(lambda event: shown(event.object) == status)
        assert words in main(seen.object).state.waiting.message
    finally:
        watch.close()


def test_a_missing_command_is_a_start_error(api: Api, make: Make) -> None:
    watch = api.watch(POD, "default")
    try:
        make(pod("mute", "/no/such/command"))
        watch.wait(lambda event: shown(event.object) == "RunContainerError")
        found = api.pod_when("mute", lambda found: shown(found) == "CrashLoopBackOff")
        end = main(found).lastState.terminated
        assert (end.reason, end.exitCode) == ("StartError", 128)
        assert "/no/such/command" in end.message
    finally:
        watch.close()


def test_a_process_that_ignores_sigterm_is_killed_at_the_end_of_its_grace(api: Api, make: Make) -> None:
    make(pod("stubborn", *STUBBORN, terminationGracePeriodSeconds=2))
    api.running("stubborn")
    watch = api.watch(POD, "default")
    try:
        before = datetime.now(UTC).timestamp()
        api.delete(POD, "stubborn")
        last = watch.wait(lambda event: event.type == "DELETED" and event.object.metadata.name == "stubborn").object
        assert main(last).state.terminated.exitCode == 137
        lasted = main(last).state.terminated.finishedAt.ToNanoseconds() / 1e9 - before
        assert 1.9 <= lasted <= 4, lasted
        statuses = [shown(event.object) for event in watch.events if event.object.metadata.name == "stubborn"]
        assert "Terminating" in statuses
    finally:
        watch.close()


def test_sigterm_lets_a_process_end_with_its_own_code(api: Api, make: Make) -> None:
    text = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    make(pod("polite", "/bin/sh", "-c", text))
    api.running("polite")
    watch = api.watch(POD, "default")
    try:
        api.pod_when("polite", lambda _: api.logs("polite") == b"ready\n")
        api.delete(POD, "polite")
        last = watch.wait(lambda event: event.type == "DELETED" and event.object.metadata.name == "polite").object
        assert main(last).state.terminated.exitCode == 7
    finally:
        watch.close()


def test_a_deadline_set_on_a_running_pod_fails_it(api: Api, make: Make) -> None:
    make(pod("late", terminationGracePeriodSeconds=0))
    running = api.running("late")
    running.spec.activeDeadlineSeconds = 1
    running.metadata.resourceVersion = ""
    api.update(running)
    found = api.pod_when("late", lambda found: found.status.phase == "Failed", seconds=15)
    assert found.status.reason == "DeadlineExceeded"


def test_a_pod_can_be_deleted_while_it_starts(api: Api, make: Make) -> None:
    make(pod("early", init=[["/bin/sleep", "infinity"]], terminationGracePeriodSeconds=1))
    api.pod_when("early", lambda found: shown(found) == "Init:0/1")
    api.delete(POD, "early")
    api.gone(POD, "early", seconds=10)
