"""After deleting everything, and after `make down`, the machine is as before (L7)."""

from __future__ import annotations

import pytest

from devcluster.cluster import Cluster
from devcluster.commands import run
from podplane.kinds import POD
from tests.cluster.conftest import MakeCluster, client
from tests.support.machine import changes, snapshot
from tests.support.objects import pod
from tests.support.waiting import eventually


@pytest.mark.alone
@pytest.mark.timeout(180)
def test_pods_and_then_the_cluster_leave_nothing(clusters: MakeCluster) -> None:
    before = snapshot()
    cluster = clusters("leftovers", nodes=2)
    with client(cluster) as api:
        eventually(lambda: all(cluster.process(node) for node in cluster.nodes))
        empty = {node: on_node(cluster, node) for node in cluster.nodes}
        names = [f"trace-{number}" for number in range(4)]
        for name in names:
            api.create(pod(name, init=[["/bin/true"]]))
        for name in names:
            api.running(name)
        for name in names:
            api.delete(POD, name, grace=1)
        for name in names:
            api.gone(POD, name)
        eventually(lambda: {node: on_node(cluster, node) for node in cluster.nodes} == empty, 20,
                   f"an empty node; it was {empty}")  # fmt: skip
    cluster.down()
    assert_unchanged(before)


def assert_unchanged(before: dict[str, list[str]]) -> None:
    """The kernel takes namespaces and their links apart a moment after their last process."""
    last: dict[str, list[str]] = {}

    def same() -> bool:
        nonlocal last
        last = changes(before)
        return not last

    try:
        eventually(same, 20)
    except AssertionError:
        raise AssertionError(f"left over: {last}") from None


def on_node(cluster: Cluster, node: str) -> dict[str, list[str]]:
    """Links, pod mounts, pod directories and processes of a node."""
    links = [line.split()[1].split("@")[0] for line in run(cluster.inside(node, ["ip", "-o", "link"])).splitlines()]
    mounts = [line.split()[1] for line in run(cluster.inside(node, ["cat", "/proc/mounts"])).splitlines()]
    files = run(cluster.inside(node, ["find", "/run/podplane", "-mindepth", "2", "-not", "-name", "*.journal"]))
    return {
        "links": sorted(links),
        "mounts": sorted(mounts),
        "files": sorted(line for line in files.splitlines() if "sandbox" in line or "containers/" in line),
        "processes": [str(pid) for pid in sorted(cluster.container_pids())],
    }
