"""Processes by pid, safely: a pid alone may be another process by now, so every record carries its start time.

Never ends a process that it cannot name by pid and start time, or find by what only this cluster's have.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from devcluster.errors import DevClusterError


@dataclass(frozen=True, slots=True)
class Process:
    """A process: its pid and its start time in clock ticks since boot (/proc/PID/stat, field 22)."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has `pid` now; None where there is none or it is a zombie."""
        fields = _stat(pid)
        return None if fields is None or fields[0] in "ZX" else cls(pid, int(fields[19]))

    @property
    def alive(self) -> bool:
        """True while this very process runs."""
        return Process.of(self.pid) == self

    def namespace(self, name: str) -> Path:
        """The file of one of its namespaces: net, mnt."""
        return Path(f"/proc/{self.pid}/ns/{name}")


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name may hold spaces and brackets: the fields begin after the last bracket.
    return text.rpartition(")")[2].split()


def pids() -> Iterator[int]:
    """Every pid that this process can see."""
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())


def command_line(pid: int) -> list[str]:
    """The arguments of a process; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def inside(pid: int, namespaces: Iterable[Path]) -> bool:
    """True where the process is in one of these namespaces (files as in /proc/PID/ns/net)."""
    for namespace in namespaces:
        try:
            if os.stat(f"/proc/{pid}/ns/{namespace.name}").st_ino == os.stat(namespace).st_ino:
                return True
        except OSError:
            continue
    return False


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Return once `condition` holds; DevClusterError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise DevClusterError(f"{what} did not happen within {seconds:g} s")
        time.sleep(0.02)


def end(processes: Sequence[Process], grace: float = 5.0) -> None:
    """SIGTERM, then SIGKILL after `grace` seconds; returns when all are gone."""
    _signal(processes, signal.SIGTERM)
    try:
        wait_for(lambda: not any(process.alive for process in processes), grace, "the end")
    except DevClusterError:
        kill(processes)


def kill(processes: Sequence[Process]) -> None:
    """SIGKILL; returns when all are gone."""
    _signal(processes, signal.SIGKILL)
    wait_for(lambda: not any(process.alive for process in processes), 10, f"the end of {processes}")


def _signal(processes: Sequence[Process], number: int) -> None:
    for process in processes:
        if process.alive:
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                continue
