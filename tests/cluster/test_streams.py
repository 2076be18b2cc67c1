"""Exec, port-forward and cp against real daemons: what a person sees, what a caller's end leaves behind."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from devcluster.cluster import Cluster
from podplane.kinds import POD
from podplane.v1 import pod_pb2
from tests.support.api import Api
from tests.support.objects import pod


@pytest.fixture
def target(api: Api) -> Iterator[pod_pb2.Pod]:
    """A pod that sleeps."""
    api.create(pod("target"))
    try:
        yield api.running("target")
    finally:
        api.delete(POD, "target", grace=0)
        api.gone(POD, "target")


def podctl(
    cluster: Cluster, *words: str, stdin: bytes = b"", seconds: float = 30
) -> subprocess.CompletedProcess[bytes]:
    argv = [str(cluster.podctl), *words]
    return subprocess.run(argv, env=cluster.environment, input=stdin, capture_output=True, timeout=seconds, check=False)


def test_exec_ends_with_the_exit_status_of_the_command(cluster: Cluster, target: pod_pb2.Pod) -> None:
    done = podctl(cluster, "exec", "target", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout) == (7, b"out\n")
    assert done.stderr == b"err\ncommand terminated with exit code 7\n"
    assert podctl(cluster, "exec", "target", "--", "true").returncode == 0
    assert podctl(cluster, "exec", "target", "--", "sh", "-c", "kill -9 $$").returncode == 137


def test_a_mebibyte_comes_back_as_it_went_in(cluster: Cluster, target: pod_pb2.Pod) -> None:
    sent = bytes(range(256)) * 4096
    done = podctl(cluster, "exec", "-i", "target", "--", "cat", stdin=sent)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == sent
