"""What answers, as seen from a node, and by which rules."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator

from devcluster.cluster import Cluster
from tests.support.terminal import podctl
from tests.support.waiting import eventually


def connects(cluster: Cluster, node: str, address: str, port: int) -> bool:
    """Whether a TCP connection from a node is taken."""
    argv = cluster.inside(node, ["busybox", "nc", "-w", "1", address, str(port)])
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False).returncode == 0


def restart_in(cluster: Cluster, mode: str, service: str) -> None:
    """Start every node's agent anew with this proxy mode; return when all have the service's rules in it."""
    for node in cluster.nodes:
        cluster.stop(node)
        cluster.start_node(node, {"PODPLANE_PROXY_MODE": mode})
    eventually(lambda: _works_in(cluster, mode, service), 30, f"every node in mode {mode}")


@contextlib.contextmanager
def own_mode_afterwards(cluster: Cluster) -> Iterator[None]:
    """Whatever modes the nodes have meanwhile."""
    try:
        yield
    finally:
        for node in cluster.nodes:
            cluster.stop(node)
            cluster.start_node(node)


def _works_in(cluster: Cluster, mode: str, service: str) -> bool:
    done = podctl(cluster, "why", "service", service, "-o", "json")
    found = json.loads(done.stdout) if done.returncode == 0 else {"nodes": [{}]}
    return all(row.get("rules", {}).get("mode") == mode for row in found["nodes"])
