"""What a node and its agent hold, counted from outside: after pods came and went, every count is what it was.

Reads only. Memory is in bytes; everything else is a number of things.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from devcluster import census
from devcluster.cluster import Cluster
from devcluster.commands import run


def counters(cluster: Cluster, node: str) -> dict[str, int]:
    """The counts of one node whose agent runs. Of IPv4 only: a bridge without ports loses its link-local IPv6 route."""
    agent, holder = cluster.process(node), cluster.holder(node)
    assert agent is not None, f"{node} has no agent"
    state, home = cluster.root / node, Path(f"/proc/{holder.pid}/root/run/podplane")
    found = {
        "mounts": len(Path(f"/proc/{holder.pid}/mountinfo").read_text().splitlines()),
        "processes": len(census.inhabitants([holder])),
        "processes in pods": len(cluster.container_pids()),
        "cgroups": sum(1 for top in Path("/sys/fs/cgroup").glob(f"*/{cluster.cgroup(node)}") for _ in os.walk(top)),
        "threads": len(os.listdir(f"/proc/{agent.pid}/task")),
        "files below run": _files(home),
        "files below state": _files(state),
    }
    for kind, count in descriptors(agent.pid).items():
        found[f"descriptors: {kind}"] = count
    for what, argv in (
        ("links", ["ip", "-o", "link"]),
        ("addresses", ["ip", "-4", "-o", "address"]),
        ("routes", ["ip", "-4", "route", "show", "table", "all"]),
        ("neighbours", ["ip", "neighbour", "show", "nud", "permanent"]),
        ("rules", ["nft", "--stateless", "list", "ruleset"]),
    ):
        found[what] = len(run(cluster.inside(node, argv)).splitlines())
    return found


def tracked(cluster: Cluster, node: str) -> int:
    """Connections that the node's kernel tracks: those of others come and go."""
    return int(run(cluster.inside(node, ["conntrack", "-C"])))


def journals(cluster: Cluster, node: str) -> list[int]:
    """The sizes of the agent's journals."""
    home = Path(f"/proc/{cluster.holder(node).pid}/root/run/podplane")
    return [path.stat().st_size for path in (home / "journal/boot.log", cluster.root / node / "journal/durable.log")]


def memory(cluster: Cluster, node: str) -> int:
    """The agent's own memory: what is only its."""
    agent = cluster.process(node)
    assert agent is not None
    lines = Path(f"/proc/{agent.pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def _files(top: Path) -> int:
    """Files and directories, but those that may come and go with any pod: compiled filters are kept on purpose."""
    return sum(len(files) + len(below) for _, below, files in os.walk(top))


def descriptors(pid: int) -> dict[str, int]:
    """How many a process has of each kind."""
    found: dict[str, int] = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            kind = target.partition(":")[0] if not target.startswith("/") else "files"
            found[kind] = found.get(kind, 0) + 1
    return found
