"""What a machine carries, so that a test can show that it left nothing behind (the ledger's L7)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


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
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            name = Path(f"/proc/{entry}/comm").read_text().strip()
            state = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z" and name in {"conmon", "crun", "runc", "podplane-nodeag", "podplane-contro", "sleep"}:
            found.append(f"{entry} {name}")
    return found
