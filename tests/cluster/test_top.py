"""podctl top against real daemons and real containers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devcluster.cluster import Cluster
from podplane.kinds import POD
from tests.cluster.conftest import client
from tests.support.objects import pod
from tests.support.terminal import podctl


@pytest.fixture(scope="module")
def busy(cluster: Cluster) -> Iterator[str]:
    """A pod with a container that works at a tenth of a core and holds 64 MiB, and one that sleeps."""
    made = pod("busy", "/usr/bin/python3", "-c", "b = bytearray(b'x' * (64 << 20))\nwhile True: pass")
    made.spec.containers[0].resources.limits["cpu"] = "100m"
    made.spec.containers.add(name="idle", image="host", command=["/bin/sleep", "infinity"])
    with client(cluster) as api:
        api.create(made)
        try:
            api.running("busy")
            yield "busy"
        finally:
            api.delete(POD, "busy", grace=0)
            api.gone(POD, "busy")


def rows(cluster: Cluster, *words: str) -> list[list[str]]:
    done = podctl(cluster, "top", *words)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.decode().splitlines()]


def test_pods_and_containers_show_what_they_use(cluster: Cluster, busy: str) -> None:
    header, (name, cpu, memory) = rows(cluster, "pod", busy)
    assert header == ["NAME", "CPU(cores)", "MEMORY(bytes)"]
    assert name == busy
    assert 50 <= int(cpu.removesuffix("m")) <= 150
    assert 64 <= int(memory.removesuffix("Mi")) <= 96
    _, first, second = rows(cluster, "pods", "-l", "app=busy", "--containers", "--sort-by=memory")
    assert (first[:2], second[:2]) == ([busy, "main"], [busy, "idle"])
    assert int(second[3].removesuffix("Mi")) < 16
    everywhere = rows(cluster, "pods", "-A", "--no-headers")
    assert ["default", busy] in [row[:2] for row in everywhere]


def test_nodes_show_what_they_use_of_what_is_allocatable(cluster: Cluster) -> None:
    header, *found = rows(cluster, "nodes")
    assert header == ["NAME", "CPU(cores)", "CPU%", "MEMORY(bytes)", "MEMORY%"]
    assert [row[0] for row in found] == cluster.nodes
    assert all(int(row[3].removesuffix("Mi")) > 0 and row[4].endswith("%") for row in found)


def test_a_wrong_name_and_an_empty_namespace_are_told(cluster: Cluster) -> None:
    missing = podctl(cluster, "top", "pod", "no-such-pod")
    assert missing.returncode == 1
    assert b'pods "no-such-pod" not found' in missing.stderr
    empty = podctl(cluster, "top", "pods", "-n", "empty")
    assert (empty.returncode, empty.stdout) == (0, b"")
    assert empty.stderr == b"No resources found in empty namespace.\n"
    assert b"pods or nodes" in podctl(cluster, "top", "services").stderr
