"""Who is alive and how containers ended: conmon's exit files by inotify, conmon itself by pidfd; no polling.

Owns one inotify watch and one pidfd per container. Tells each end exactly once through `report`, with conmon's exit
file as the truth; a conmon that died without writing one is told through `lost`, since its container lives on
unwatched. Never kills and never deletes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nodeagent import smallfiles
from nodeagent.runtime import inotify
from nodeagent.runtime.cgroups import Cgroups
from nodeagent.runtime.conmon import Files
from nodeagent.runtime.logs import termination_message
from nodeagent.types import ContainerExit
from podplane import quantity

MESSAGE_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Watched:
    """What must be known of a container when it ends."""

    files: Files
    cgroup: str
    message: Path | None
    """The termination message file on the node."""
    log: Path | None = None
    """Where the end of the log is the message of who fails without one."""


def read_message(path: Path | None) -> str:
    """The termination message, its last 4096 bytes; "" where there is none."""
    if path is None:
        return ""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return ""
        file.seek(max(0, found.st_size - MESSAGE_LIMIT))
        return file.read(MESSAGE_LIMIT).decode(errors="replace")


def read_exit(watched: Watched, cgroups: Cgroups) -> ContainerExit | None:
    """How a container ended by its exit file; None while it has none."""
    files = watched.files
    try:
        text, finished = files.exit.read_text(), files.exit.stat().st_mtime
        code = int(text)
    except (FileNotFoundError, ValueError):
        return None
    # conmon notes the event as it happens; the kernel's counter knows of those that came before conmon listened.
    oom = (files.persist / "oom").exists() or cgroups.oom_kills(watched.cgroup) > 0
    message = read_message(watched.message)
    if not message and code != 0 and watched.log is not None:
        message = termination_message(watched.log)
    if oom:
        message = "\n".join(filter(None, (message, _memory_words(*cgroups.memory_bounds(watched.cgroup)))))
    return ContainerExit(files.id, code, oom, finished, message)


def _memory_words(limit: int | None, peak: int | None) -> str:
    words = "no memory limit of its own" if limit is None else f"memory limit {quantity.of_value(limit, binary=True)}"
    return words if peak is None else f"{words}, peak {quantity.of_value(peak, binary=True)}"


def living_conmon(files: Files) -> int | None:
    """A pidfd of a container's conmon; None where it is gone. A reused pid is told by its command line."""
    try:
        pid = int(smallfiles.read(files.conmon_pid))
        pidfd = os.pidfd_open(pid)
    except (OSError, ValueError):
        return None
    with contextlib.suppress(OSError):
        if files.id.encode() in smallfiles.read(f"/proc/{pid}/cmdline").split(b"\0"):
            return pidfd
    os.close(pidfd)
    return None


class Supervision:
    """The ends of the containers that are watched."""

    def __init__(
        self,
        exits: Path,
        cgroups: Cgroups,
        events: inotify.Inotify,
        report: Callable[[ContainerExit], None],
        lost: Callable[[Watched], None],
    ) -> None:
        self._cgroups, self._report, self._lost = cgroups, report, lost
        self._watched: dict[str, Watched] = {}
        self._pidfds: dict[str, int] = {}
        events.watch(exits, inotify.IN_CLOSE_WRITE | inotify.IN_MOVED_TO, self._written)

    def watch(self, watched: Watched, pidfd: int | None) -> None:
        """Watch a container; takes the pidfd of its conmon over. What has happened already is told at once."""
        id = watched.files.id
        self.forget(id)
        self._watched[id] = watched
        if pidfd is None:
            self._conmon_gone(id)
            return
        self._pidfds[id] = pidfd
        asyncio.get_running_loop().add_reader(pidfd, partial(self._conmon_gone, id))
        self._check(id)

    def forget(self, id: str) -> None:
        """Watch a container no more."""
        self._watched.pop(id, None)
        self._close(id)

    def watches(self, id: str) -> bool:
        """Whether a container's end is still to be told."""
        return id in self._watched

    def living(self) -> list[str]:
        """The containers whose ends are still to be told."""
        return list(self._watched)

    def close(self) -> None:
        """Watch nothing any more."""
        for id in list(self._watched):
            self.forget(id)

    def _written(self, _mask: int, name: str) -> None:
        for id in [name] if name else list(self._watched):
            self._check(id)

    def _check(self, id: str) -> bool:
        watched = self._watched.get(id)
        if watched is None:
            return True
        end = read_exit(watched, self._cgroups)
        if end is None:
            return False
        del self._watched[id]
        self._close(id)
        self._report(end)
        return True

    def _conmon_gone(self, id: str) -> None:
        self._close(id)
        # conmon writes the exit file before it ends: without one it was killed.
        if not self._check(id):
            self._lost(self._watched.pop(id))

    def _close(self, id: str) -> None:
        pidfd = self._pidfds.pop(id, None)
        if pidfd is not None:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)
