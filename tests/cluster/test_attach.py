"""attach and run against real daemons: a container's own stdin, terminal and end."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from devcluster.cluster import Cluster
from podplane.kinds import POD
from podplane.v1 import pod_pb2
from tests.support.api import Api
from tests.support.objects import pod
from tests.support.terminal import Terminal, podctl


@contextmanager
def running(api: Api, name: str, script: str, restart: str = "Never", **container: Any) -> Iterator[pod_pb2.Pod]:
    """A pod whose container was made for somebody to attach to."""
    made = pod(name, "/bin/sh", "-c", script, restartPolicy=restart)
    made.spec.containers[0].MergeFrom(type(made.spec.containers[0])(**container))
    api.create(made)
    try:
        yield api.running(name)
    finally:
        api.delete(POD, name, grace=0)
        api.gone(POD, name)


def test_stdin_that_is_open_once_ends_with_its_caller(cluster: Cluster, api: Api) -> None:
    sent = bytes(range(256)) * 8192
    with running(api, "once", "cat; echo finished >&2; exit 3", stdin=True, stdinOnce=True):
        done = podctl(cluster, "attach", "-i", "once", stdin=sent)
        assert (done.returncode, done.stderr) == (0, b"finished\n")
        assert done.stdout == sent
        ended = api.pod_when("once", lambda found: found.status.phase == "Failed")
        assert ended.status.containerStatuses[0].state.terminated.exitCode == 3
        late = podctl(cluster, "attach", "once")
        assert late.returncode == 1
        assert b"cannot attach a container in a completed pod; current phase is Failed" in late.stderr


def test_stdin_stays_open_for_the_next_caller(cluster: Cluster, api: Api) -> None:
    script = "while read word; do echo got $word; test $word = end && exit 0; done; echo closed; sleep 1000"
    with running(api, "often", script, stdin=True):
        argv = [str(cluster.podctl), "attach", "-i", "often"]
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, env=cluster.environment, stdin=pipe, stdout=pipe, bufsize=0) as first:
            assert first.stdin is not None
            assert first.stdout is not None
            first.stdin.write(b"one\n")
            assert first.stdout.readline() == b"got one\n"
            first.kill()
        done = podctl(cluster, "attach", "-i", "often", stdin=b"two\nend\n")
        assert (done.returncode, done.stdout) == (0, b"got two\ngot end\n")


def test_one_who_only_looks_on_does_not_close_stdin(cluster: Cluster, api: Api) -> None:
    script = "while :; do echo tick >&2; sleep 0.1; done & while read word; do echo got $word; done; kill $!"
    with running(api, "shown", script, stdin=True, stdinOnce=True):
        argv = [str(cluster.podctl), "attach", "shown"]
        with subprocess.Popen(argv, env=cluster.environment, stderr=subprocess.PIPE) as onlooker:
            assert onlooker.stderr is not None
            assert onlooker.stderr.readline() == b"tick\n"
            onlooker.kill()
        done = podctl(cluster, "attach", "-i", "shown", stdin=b"one\ntwo\n")
        assert (done.returncode, done.stdout) == (0, b"got one\ngot two\n")


def test_a_terminal_is_taken_over_with_its_size(cluster: Cluster, api: Api) -> None:
    with (
        running(api, "shell", "exec /bin/sh -i", stdin=True, tty=True, restart="Always"),
        Terminal(cluster, "attach", "-it", "shell", size=(31, 101)) as terminal,
    ):
        terminal.read_until("press")
        # A size and what is typed go different ways into the container.
        terminal.type("until stty size | grep -q '31 101'; do sleep 0.1; done; stty size; tty; echo $((40+2))\r")
        assert "/dev/" in terminal.read_until("\n31 101", "\n42")
        terminal.resize(20, 60)
        terminal.type("until stty size | grep -q '20 60'; do sleep 0.1; done; echo resized\r")
        terminal.read_until("\nresized")
        terminal.type("exit 5\r")
        terminal.read_until("Session ended, resume using 'podctl attach shell -c main -i -t'")
        assert terminal.ended() == 0


def test_run_attaches_and_ends_as_its_container_did(cluster: Cluster, api: Api) -> None:
    words = ("--rm", "-i", "--restart=Never", "--image=host", "--command", "--")
    done = podctl(cluster, "run", "errand", *words, "sh", "-c", "cat; exit 6", stdin=b"words\n")
    assert (done.returncode, done.stdout) == (6, b'words\npod "errand" deleted\n')
    api.gone(POD, "errand")
