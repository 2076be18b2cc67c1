"""What cgroups and directories use now. Reads only; what has gone meanwhile uses nothing.

CPU is the total since the cgroup was made, memory the working set as the kubelet counts it (cadvisor): what is charged
without the file cache that the kernel would drop first. Fails with OSError where a directory cannot be read.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nodeagent.runtime.cgroups import Cgroups

MOST_FILES = 1_000_000
"""Files of a tree that are looked at: a container that has made more is told as having these, and holds nobody up."""


@dataclass(frozen=True, slots=True)
class Sample:
    """cpu: nanoseconds in total. memory: bytes. pids: processes and threads."""

    cpu: int
    memory: int
    pids: int


def sample(cgroups: Cgroups, cgroup: str) -> Sample | None:
    """Of a cgroup and all below it; None where it has gone."""
    try:
        if cgroups.version == 2:
            path = cgroups.trees[0] / cgroup
            cpu, charged = _fields(path / "cpu.stat")["usage_usec"] * 1000, _number(path / "memory.current")
            inactive = _fields(path / "memory.stat")["inactive_file"]
        else:
            memory = cgroups.tree_of("memory") / cgroup
            cpu = _number(cgroups.tree_of("cpuacct") / cgroup / "cpuacct.usage")
            charged = _number(memory / "memory.usage_in_bytes")
            inactive = _fields(memory / "memory.stat")["total_inactive_file"]
        pids = _number(cgroups.tree_of("pids") / cgroup / "pids.current")
    except OSError:  # ENOENT, or ENODEV between open and read
        return None
    return Sample(cpu, max(0, charged - inactive), pids)


def node_cpu() -> int:
    """Nanoseconds that this machine's CPUs have worked since it was booted."""
    words = Path("/proc/stat").read_text().partition("\n")[0].split()
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, words[1:9])
    return (user + nice + system + irq + softirq + steal) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))


def tree_use(*roots: Path) -> tuple[int, int]:
    """(bytes on the disk, files) below directories: links are not followed, nor are other filesystems entered."""
    size = files = 0
    seen: set[int] = set()
    for root in roots:
        for found in _below(root):
            files += 1
            if found.st_nlink > 1:
                if found.st_ino in seen:
                    continue
                seen.add(found.st_ino)
            size += found.st_blocks * 512
            if files >= MOST_FILES:
                return size, files
    return size, files


def _below(root: Path) -> Iterator[os.stat_result]:
    try:
        top = os.lstat(root)
    except FileNotFoundError:
        return
    left = [str(root)]
    while left:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(left.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    yield found
                    if entry.is_dir(follow_symlinks=False) and found.st_dev == top.st_dev:
                        left.append(entry.path)


def _number(path: Path) -> int:
    return int(path.read_bytes())


def _fields(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in map(str.split, path.read_text().splitlines())}
