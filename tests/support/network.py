"""What answers, as seen from a node."""

from __future__ import annotations

import subprocess

from devcluster.cluster import Cluster


def connects(cluster: Cluster, node: str, address: str, port: int) -> bool:
    """Whether a TCP connection from a node is taken."""
    argv = cluster.inside(node, ["busybox", "nc", "-w", "1", address, str(port)])
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False).returncode == 0
