"""The ledger sees what is wrong: a checker that cannot fail would prove nothing."""

from __future__ import annotations

import base64
import http.server
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from podplane.v1 import pod_pb2
from tests.support import host
from tests.support.leaks import found_in
from tests.support.ledger import History, Serving, is_settled
from tests.support.waiting import eventually


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


@pytest.fixture
def server() -> Iterator[http.server.HTTPServer]:
    """Serves this directory's list on a port of its own."""
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def test_requests_that_fail_are_told_once(server: http.server.HTTPServer) -> None:
    serving = Serving("web", "127.0.0.1", server.server_port, Path("/proc/self/ns/net"))
    eventually(lambda: serving.done > 3, what="some requests")
    assert serving.wrong() == []
    server.shutdown()
    server.server_close()
    (words,) = eventually(serving.wrong, what="one that fails")
    assert words.startswith("L9 web: ")
    assert "Connect" in words
    serving.end()


def test_a_child_that_nobody_waits_for_is_a_zombie() -> None:
    with subprocess.Popen(["/bin/true"]) as child:
        eventually(lambda: (child.pid, os.getpid(), "Z") in set(host.family()), 5, "the end of the child")
    assert child.pid not in {pid for pid, _, _ in host.family()}


@pytest.mark.parametrize("before", ["", "a", "ab"])
def test_a_secret_is_found_plain_and_in_base64(before: str) -> None:
    canaries = {"points/key": "canary-0123456789"}
    assert found_in(f"PASSWORD={before}canary-0123456789\n".encode(), canaries) == ["points/key"]
    assert found_in(base64.b64encode(f"{before}canary-0123456789".encode()), canaries) == ["points/key"]
    assert found_in(b"canary-0123456788", canaries) == []


def test_a_pod_has_settled_where_it_gets_by_itself() -> None:
    running, ended_, going = a_pod(1), ended(2, 7), ended(3, 7)
    assert not is_settled(running)
    running.status.conditions.add(type="Ready", status="True")
    assert is_settled(running)
    assert is_settled(ended_)
    going.metadata.deletionTimestamp.seconds = 1
    assert not is_settled(going)
