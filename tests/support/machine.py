"""What a machine carries, so that a test can show that it left nothing behind (the ledger's L7)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from devcluster.proc import Process, command_line, pids

PROGRAMS = {"conmon", "crun", "runc", "podplane-nodeagent", "podplane-controlplane"}


def snapshot() -> dict[str, list[str]]:
    """Everything that a cluster might leave: links, addresses, routes, rules, mounts, cgroups, processes."""
    return {
        "links": sorted(os.listdir("/sys/class/net")),
        "routes": sorted(_lines("ip", "route", "show", "table", "all")),
        "nftables": _lines("nft", "list", "tables"),
        "mounts": sorted(line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()),
        "cgroups": sorted(str(path) for path in Path("/sys/fs/cgroup").glob("*/podplane*")),
        "namespaces": _lines("ip", "netns", "list"),
        "processes": sorted(_processes()),
    }


def changes(before: dict[str, list[str]]) -> dict[str, list[str]]:
    """What differs from `before` now: lines that came with +, lines that went with -."""
    found = {}
    for name, now in snapshot().items():
        lines = [f"+{line}" for line in now if line not in before[name]]
        lines += [f"-{line}" for line in before[name] if line not in now]
        if lines:
            found[name] = lines
    return found


def _lines(*argv: str) -> list[str]:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=10).stdout.splitlines()


def _processes() -> list[str]:
    """Our programs and those that we start; zombies wait for PID 1 and are not ours to reap."""
    found = []
    for pid in pids():
        words = command_line(pid)
        ours = any(Path(word).name in PROGRAMS for word in words[:3]) or words == ["sleep", "infinity"]
        if ours and Process.of(pid) is not None:
            found.append(f"{pid} {' '.join(words[:4])}")
    return found
