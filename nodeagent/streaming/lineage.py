"""Everything that descends from one process, and its end. Reads /proc; blocks for milliseconds.

An OCI runtime has no word for "end this exec": its command runs in the container's own cgroup, among the container's
processes. So the tree is followed: children, and whoever is in a session that one of the tree leads. What has left
both (a daemon that made a session of its own and whose parents are gone) belongs to the container from then on.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass

_ROUNDS = 50


@dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc/PID/stat (proc_pid_stat(5)). started: clock ticks since boot."""

    pid: int
    parent: int
    session: int
    state: str
    started: int


def look(pid: int) -> Process | None:
    """One process; None where there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            words = stat.read().rpartition(b") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Process(pid, int(words[1]), int(words[3]), words[0].decode(), int(words[19]))


def descendants(root: int) -> set[int]:
    """Every living process that descends from `root`, without itself."""
    left = [found for name in os.listdir("/proc") if name.isdigit() and (found := look(int(name))) is not None]
    tree = {root}
    grown = True
    while grown:
        more = {item.pid for item in left if item.parent in tree or item.session in tree}
        grown = not more <= tree
        tree |= more
    return {item.pid for item in left if item.pid in tree and item.pid != root and item.state not in "ZX"}


def kill(root: int) -> None:
    """Kill all that descends from `root`, then `root`. The caller keeps `root` unreaped: its number stays its own."""
    for _ in range(_ROUNDS):  # what forks meanwhile is met by the next round
        living = descendants(root)
        for pid in living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not living:
            break
    with contextlib.suppress(ProcessLookupError):
        os.kill(root, signal.SIGKILL)
