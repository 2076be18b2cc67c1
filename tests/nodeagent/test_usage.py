"""Rates from two readings, what a directory holds, and the figures of a real cgroup."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.runtime.cgroups import Cgroups
from nodeagent.runtime.usage import Sample, node_cpu, sample, tree_use
from nodeagent.usage import Reading, report
from tests.support.waiting import eventually

MI = 1 << 20
SECOND = 1_000_000_000


def test_rates_are_what_was_used_between_two_readings() -> None:
    first = Reading(10.0, 5 * SECOND, 0, {("u1", "web", 0): Sample(SECOND, 8 * MI, 1)})
    later = {("u1", "web", 0): Sample(2 * SECOND, 9 * MI, 3), ("u1", "log", 0): Sample(7, MI, 1)}
    made = report(first, Reading(12.0, 8 * SECOND, 300 * MI, later), 1000.0)
    assert (made.windowSeconds, made.timestamp.seconds) == (2.0, 1000)
    assert (made.node.cpuNanoCores, made.node.memoryBytes) == (1_500_000_000, 300 * MI)
    (pod,) = made.pods
    assert [(c.name, c.cpuNanoCores, c.memoryBytes) for c in pod.containers] == [("web", 500_000_000, 9 * MI)]


def test_a_container_that_began_anew_never_has_a_negative_rate() -> None:
    key = ("u1", "web", 0)
    made = report(Reading(1.0, 0, 0, {key: Sample(9, 0, 0)}), Reading(2.0, 0, 0, {key: Sample(3, 0, 0)}), 0.0)
    assert made.pods[0].containers[0].cpuNanoCores == 0


def test_a_tree_counts_its_files_once_and_follows_no_link(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    (inside / "deep").mkdir(parents=True)
    outside.mkdir()
    (outside / "large").write_bytes(os.urandom(4 * MI))
    (inside / "deep" / "file").write_bytes(os.urandom(MI))
    os.link(inside / "deep" / "file", inside / "again")
    (inside / "link").symlink_to(outside)
    size, files = tree_use(inside, tmp_path / "absent")
    assert MI <= size < 2 * MI
    assert files == 4


@pytest.fixture
def cgroup() -> Iterator[str]:
    cgroups, name = Cgroups.detect(), f"podplane-test-{os.getpid()}"
    cgroups.create(name)
    yield name
    eventually(lambda: cgroups.remove(name), 10, "end of the cgroup")


def test_a_cgroup_tells_cpu_working_set_and_processes(cgroup: str) -> None:
    cgroups = Cgroups.detect()
    code = "import os,sys\nb = os.urandom(64 << 20)\nprint(flush=True)\nsys.stdin.read()"
    # It enters the cgroup before it takes the memory.
    script = "; ".join(f"echo 0 >{path}/cgroup.procs" for path in cgroups.paths(cgroup))
    argv = ["/bin/sh", "-c", f'{script}; exec "$0" -c "$1"', sys.executable, code]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found = sample(cgroups, cgroup)
        child.communicate()
    assert found is not None
    assert found.pids == 1
    assert 64 * MI <= found.memory < 128 * MI
    assert found.cpu > 10_000_000
    assert sample(cgroups, "podplane-test-absent") is None


def test_the_nodes_cpu_time_goes_on() -> None:
    before, began = node_cpu(), time.process_time()
    while time.process_time() - began < 0.1:
        pass
    assert node_cpu() > before
