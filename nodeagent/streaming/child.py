"""The runtime's exec process: its start, its stdio, its end, and the mark by which the next agent finds it.

    marks/<pid>-<start>    a runtime process that an agent started; left behind only by an agent that was killed
    marks/<token>.pid      written by the runtime once the command runs
    marks/<token>.json     what the runtime is asked for

Owns the descriptors and the process. Nothing is read from a command before it runs: what the runtime itself says
until then is why it does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import struct
import subprocess
import termios
import tty
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nodeagent import syscalls
from nodeagent.runtime.command import SEARCH_PATH
from nodeagent.runtime.inotify import IN_CLOSE_WRITE, IN_MOVED_TO, Inotify
from nodeagent.sandbox.threads import in_fresh_thread
from nodeagent.streaming import lineage, pumps

log = logging.getLogger(__name__)

START_SECONDS = 30.0
_WORDS = 4096


class NotStarted(Exception):
    """The command does not run: in the runtime's words."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Whether there is somebody to read from, and whether all three streams are one terminal."""

    stdin: bool
    tty: bool


class Child:
    """A command in a container, under the runtime's own process. `command(pid_file)` is the runtime's command line,
    `seconds` what it has to start the command."""

    def __init__(
        self,
        marks: Path,
        events: Inotify,
        wish: Wish,
        command: Callable[[Path], Sequence[str]],
        seconds: float = START_SECONDS,
    ) -> None:
        self._marks, self._events, self._wish, self._seconds = marks, events, wish, seconds
        self._pid_file = marks / f"{secrets.token_hex(8)}.pid"
        self._mark: Path | None = None
        self._command = command
        self._size: tuple[int, int] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._end: asyncio.Future[int] | None = None
        self.stdin = self.stdout = self.stderr = self._inner = -1

    # ── its life ─────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Return once the command runs or has run. Raises NotStarted, OSError."""
        argv = list(self._command(self._pid_file))
        theirs = self._terminal() if self._wish.tty else self._pipes()
        try:
            self._process = subprocess.Popen(  # noqa: ASYNC220 -- vfork and exec, about 1 ms
                argv, stdin=theirs[0], stdout=theirs[1], stderr=theirs[2],
                env={"PATH": SEARCH_PATH}, start_new_session=True, cwd="/",
            )  # fmt: skip
        finally:
            pumps.close(*set(theirs))
        self._leave_mark(self._process.pid)
        self._end = asyncio.ensure_future(_end_of(self._process))
        await self._runs(self._end)

    async def ended(self) -> int:
        """Wait for the end; the exit code as a shell counts it."""
        assert self._end is not None
        return await asyncio.shield(self._end)

    async def kill(self) -> None:
        """End the command and what it has started."""
        if self._end is not None:
            # Not reaped before its descendants are dead: its number leads to them.
            self._end.cancel()
            await asyncio.gather(self._end, return_exceptions=True)
        if self._process is not None and self._process.returncode is None:
            await in_fresh_thread(partial(_kill, self._process), "end of an exec")

    async def close(self) -> None:
        """End what still runs and let go of everything."""
        try:
            await self.kill()
        finally:
            pumps.close(*{self.stdin, self.stdout, self.stderr, self._inner})
            self.stdin = self.stdout = self.stderr = self._inner = -1
            for path in (self._pid_file, self._pid_file.with_suffix(".json"), self._mark):
                if path is not None:
                    path.unlink(missing_ok=True)

    def resize(self, width: int, height: int) -> None:
        """Give the terminal its size; before the start, the one to begin with."""
        self._size = (min(width, 0xFFFF), min(height, 0xFFFF))
        if self._wish.tty and self.stdin >= 0:
            _set_size(self.stdin, *self._size)
            self._tell_size()

    def close_stdin(self) -> None:
        """The command reads the end of its stdin."""
        if self._wish.tty:
            with contextlib.suppress(OSError):
                os.write(self.stdin, b"\x04")  # ^D: closing would hang the terminal up
        elif self.stdin >= 0:
            pumps.close(self.stdin)
            self.stdin = -1

    # ── steps ────────────────────────────────────────────────────────────────────────────────────────────────

    def _terminal(self) -> list[int]:
        ours, theirs = os.openpty()
        tty.setraw(theirs)  # the container's own terminal does the line editing: nothing may be echoed twice
        os.set_blocking(ours, False)
        self.stdin = self.stdout = ours
        if self._size is not None:
            _set_size(ours, *self._size)
        return [theirs, theirs, theirs]

    def _pipes(self) -> list[int]:
        theirs = []
        if self._wish.stdin:
            reading, self.stdin = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self.stdin, False)
            theirs.append(reading)
        else:
            theirs.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
        self.stdout, out = _output()
        self.stderr, err = _output()
        return [*theirs, out, err]

    def _leave_mark(self, pid: int) -> None:
        found = lineage.look(pid)
        if found is not None:
            self._mark = self._marks / f"{pid}-{found.started}"
            self._mark.touch()

    async def _runs(self, end: asyncio.Future[int]) -> None:
        """Wait until the runtime has written the command's pid, or has ended."""
        changed = asyncio.Event()
        watch = self._events.watch(self._marks, IN_CLOSE_WRITE | IN_MOVED_TO, lambda _mask, _name: changed.set())
        end.add_done_callback(lambda _: changed.set())
        try:
            async with asyncio.timeout(self._seconds):
                while not self._written():
                    if end.done():
                        raise NotStarted(self._words())
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            raise NotStarted(f"the runtime did not start the command within {self._seconds:g} s") from None
        finally:
            self._events.forget(watch)
        if self._wish.tty and self._size is not None:
            self._tell_size()

    def _written(self) -> bool:
        try:
            return self._pid_file.stat().st_size > 0
        except FileNotFoundError:
            return False

    def _words(self) -> str:
        """What the runtime said before it ended."""
        fd = self.stdout if self._wish.tty else self.stderr
        try:
            said = os.read(fd, _WORDS).decode(errors="replace")
        except OSError:
            said = ""
        return " ".join(said.split()) or "the runtime gave no reason"

    def _tell_size(self) -> None:
        """Give the container's own terminal, which the runtime holds, our terminal's size.

        Not by SIGWINCH: crun 1.8 passes it on to the command and copies no size.
        """
        if self._size is None or self._process is None or self._process.returncode is not None:
            return
        if self._inner < 0:
            self._inner = _terminal_held_by(self._process.pid)
        if self._inner >= 0:
            _set_size(self._inner, *self._size)


async def _end_of(process: subprocess.Popen[bytes]) -> int:
    pidfd = os.pidfd_open(process.pid)
    try:
        await pumps.readable(pidfd)
    finally:
        os.close(pidfd)
    code = process.wait()
    return code if code >= 0 else 128 - code


def _terminal_held_by(pid: int) -> int:
    """A duplicate of the terminal's master that a process holds; -1 where it holds none or has ended."""
    try:
        held = [name for name in os.listdir(f"/proc/{pid}/fd") if _is_master(f"/proc/{pid}/fd/{name}")]
        pidfd = os.pidfd_open(pid)
    except OSError:
        return -1
    try:
        return syscalls.pidfd_getfd(pidfd, int(held[0])) if held else -1
    except OSError as error:
        log.warning("cannot resize the terminal of an exec: %s", error)
        return -1
    finally:
        os.close(pidfd)


def _is_master(link: str) -> bool:
    try:
        return os.readlink(link).endswith("/ptmx")
    except OSError:
        return False


def _kill(process: subprocess.Popen[bytes]) -> None:
    lineage.kill(process.pid)
    process.wait()


def _output() -> tuple[int, int]:
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(ours, False)
    return ours, theirs


def _set_size(fd: int, width: int, height: int) -> None:
    with contextlib.suppress(OSError):  # a terminal that has hung up has no size
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def sweep(marks: Path) -> None:
    """End what an agent that was killed had begun: its callers are gone."""
    marks.mkdir(mode=0o700, parents=True, exist_ok=True)
    for mark in marks.iterdir():
        pid, _, started = mark.name.partition("-")
        if pid.isdigit() and started.isdigit():
            found = lineage.look(int(pid))
            if found is not None and found.started == int(started):
                lineage.kill(found.pid)
        mark.unlink(missing_ok=True)
