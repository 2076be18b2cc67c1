"""What is left of the node's memory, disk and process ids. Reads /proc and one filesystem; fails with OSError."""

from __future__ import annotations

import os
from pathlib import Path

from nodeagent.pressure.thresholds import DISK, INODES, MEMORY, PIDS, Signal


def observe(state: Path) -> dict[str, Signal]:
    """Every signal now. `state`: the directory whose filesystem has images, logs, volumes and what containers write."""
    disk = os.statvfs(state)
    used, memory = memory_use()
    running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    most = process_ids()
    return {
        MEMORY: Signal(max(0, memory - used), memory),
        DISK: Signal(disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize),
        INODES: Signal(disk.f_favail, disk.f_files),
        PIDS: Signal(max(0, most - running), most),
    }


def memory_use() -> tuple[int, int]:
    """(working set, total) of the node in bytes; the kubelet's: what is neither free nor inactive file cache."""
    found = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    total, free, inactive = (int(found[name].split()[0]) * 1024 for name in ("MemTotal", "MemFree", "Inactive(file)"))
    return max(0, total - free - inactive), total


def process_ids() -> int:
    """How many processes and threads the node can have."""
    return min(_number("/proc/sys/kernel/pid_max"), _number("/proc/sys/kernel/threads-max"))


def _number(path: str) -> int:
    return int(Path(path).read_text())
