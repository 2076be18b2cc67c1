"""What pods cost while they stand: processes and memory of whoever supervises them, and the agent's own at rest.

A supervisor is what a runtime keeps beside a pod's own processes: conmon, containerd's shim. Memory is PSS, so that
what processes share is counted once (proc_pid_smaps_rollup(5)).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from devcluster.proc import pids

SUPERVISORS = ("conmon", "containerd-shim")
IDLE_SECONDS = 15.0
"""What an agent does by itself comes every 3, 5 and 10 seconds."""


def pss(processes: Iterable[int]) -> float:
    """MB of memory of the processes that still live."""
    total = 0
    for pid in processes:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


def name(pid: int) -> str:
    """The process' name; "" where it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def supervisors(processes: Iterable[int]) -> set[int]:
    """Those of the processes that are nobody's container."""
    return {pid for pid in processes if name(pid).startswith(SUPERVISORS)}


def family(named: Callable[[str], bool]) -> set[int]:
    """Supervisors whose command line `named` takes for its own, and everything below them."""
    found = {pid for pid in supervisors(pids()) if named(_command_line(pid))}
    left = set(found)
    while left:
        below = {child for pid in left for child in _children(pid)}
        left = below - found
        found |= below
    return found


def _command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, path.read_text().split())
    return found


def idle(pid: int) -> float:
    """Percent of a core that a process takes when nothing is asked of it."""
    before = on_cpu(pid)
    time.sleep(IDLE_SECONDS)
    return (on_cpu(pid) - before) / IDLE_SECONDS * 100


def on_cpu(pid: int) -> float:
    """Seconds on a CPU, of all threads that live."""
    spent = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            spent += int(path.read_text().split()[0])
    return spent / 1e9
