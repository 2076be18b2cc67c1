"""The network of real agents, taken apart by somebody else."""

from __future__ import annotations

import subprocess

import pytest

from devcluster.cluster import Cluster
from tests.support.waiting import eventually


def on(cluster: Cluster, node: str, line: str) -> str:
    argv = cluster.inside(node, line.split())
    return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=True).stdout


@pytest.mark.parametrize(
    ("damage", "shown"),
    [
        ("ip route flush proto 112", "ip route show proto 112"),
        ("nft delete table bridge podplane", "nft list tables bridge"),
        ("sysctl -w net.ipv4.ip_forward=0", "sysctl net.ipv4.ip_forward"),
    ],
)
def test_an_agent_mends_its_network_within_five_seconds(cluster: Cluster, damage: str, shown: str) -> None:
    before = eventually(lambda: on(cluster, "node-1", shown), what="the network as it was")
    on(cluster, "node-1", damage)
    eventually(lambda: on(cluster, "node-1", shown) == before, seconds=5, what=f"mended after {damage}")
