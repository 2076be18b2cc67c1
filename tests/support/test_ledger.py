"""The ledger sees what is wrong: a checker that cannot fail would prove nothing."""

from __future__ import annotations

import pytest

from podplane.v1 import pod_pb2
from tests.support.ledger import History


def a_pod(revision: int, phase: str = "Running", restarts: int = 0) -> pod_pb2.Pod:
    pod = pod_pb2.Pod()
    pod.metadata.name, pod.metadata.uid, pod.metadata.resourceVersion = "web", "uid-1", str(revision)
    pod.metadata.annotations["ledger/main"] = "7"
    pod.status.phase = phase
    status = pod.status.containerStatuses.add(name="main", containerID="podplane://uid-1_main_0")
    status.restartCount = restarts
    status.state.running.startedAt.seconds = 1
    return pod


def ended(revision: int, code: int, reason: str = "Error") -> pod_pb2.Pod:
    pod = a_pod(revision, "Failed")
    terminated = pod.status.containerStatuses[0].state.terminated
    terminated.exitCode, terminated.reason, terminated.containerID = code, reason, "podplane://uid-1_main_0"
    return pod


def wrong(*events: tuple[str, pod_pb2.Pod]) -> list[str]:
    history = History()
    for kind, pod in events:
        history.take(kind, pod)
    return history.wrong


def test_a_life_as_it_should_be_balances() -> None:
    life = [("ADDED", a_pod(1, "Pending")), ("MODIFIED", a_pod(2)), ("MODIFIED", ended(3, 7)), ("DELETED", ended(4, 7))]
    assert wrong(*life) == []


@pytest.mark.parametrize(
    ("words", "life"),
    [
        ("L3 web: revision 2 after 2", [("ADDED", a_pod(2)), ("MODIFIED", a_pod(2))]),
        ("L3 web: phase Pending after Running", [("ADDED", a_pod(1)), ("MODIFIED", a_pod(2, "Pending"))]),
        ("L3 web: phase Running after Failed", [("ADDED", ended(1, 7)), ("MODIFIED", a_pod(2))]),
        ("L3 web/main: 0 restarts after 1", [("ADDED", a_pod(1, restarts=1)), ("MODIFIED", a_pod(2))]),
        ("L6 web/main: restarted without a reason", [("ADDED", a_pod(1, restarts=1))]),
        ("L5 web/main: ended with (0, 'Completed'), not 7", [("ADDED", ended(1, 0, "Completed"))]),
        ("L5 web/main: exit code 0 with the reason Error", [("ADDED", ended(1, 0))]),
        ("L5 web/main: ended with (137, 'ContainerStatusUnknown'), not 7",
         [("ADDED", ended(1, 137, "ContainerStatusUnknown"))]),
        ("L5 web/main: ended with (7, 'OOMKilled') after (7, 'Error')",
         [("ADDED", ended(1, 7)), ("MODIFIED", ended(2, 7, "OOMKilled"))]),
        ("L5 web: podplane://uid-1_main_0 ran and was deleted without a terminal record",
         [("ADDED", a_pod(1)), ("DELETED", a_pod(2))]),
    ],
)  # fmt: skip
def test_what_must_not_be_is_named(words: str, life: list[tuple[str, pod_pb2.Pod]]) -> None:
    assert words in wrong(*life)
