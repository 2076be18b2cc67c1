"""Running the programs of the node, each with a deadline, and nothing shared with the agent.

A child gets a session of its own, a minimal environment and memory files for its output: no pipe can fill up or be
held open by a grandchild, and no thread is needed. Its end is a readable pidfd. Fails with ProgramTimeout (the
child's whole session is killed first) and OSError where the program cannot be started; a non-zero exit is a result.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from nodeagent.runtime.command import SEARCH_PATH

OUTPUT_LIMIT = 4 << 20
_DYING = 0.2

Watch = Callable[[Callable[[], str]], Awaitable[None]]
"""Looks on while a program runs; given what reads its stderr so far. What it raises ends the program."""


class ProgramTimeout(Exception):
    """A program did not end within its deadline and was killed."""


@dataclass(frozen=True, slots=True)
class Completed:
    """How a program ended: its exit code (negative: the signal) and what it wrote."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def out(self) -> str:
        return self.stdout.decode(errors="replace")

    @property
    def err(self) -> str:
        return self.stderr.decode(errors="replace")

    @property
    def words(self) -> str:
        """What the program said about its failure, on one line."""
        return " ".join((self.err or self.out).split()) or f"exit status {self.code}"


def _captured(fd: int) -> bytes:
    return os.pread(fd, OUTPUT_LIMIT, 0)


async def ended(pidfd: int, deadline: float) -> bool:
    """Wait until the process behind a pidfd has ended; False when it lives on after `deadline` seconds."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        loop.remove_reader(pidfd)
        if not done.done():
            done.set_result(None)

    loop.add_reader(pidfd, end)
    try:
        await asyncio.wait_for(done, deadline)
    except TimeoutError:
        return False
    else:
        return True
    finally:
        loop.remove_reader(pidfd)


def _kill_session(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    try:
        child.wait(_DYING)
    except subprocess.TimeoutExpired:
        # It waits in the kernel for something (a server of NFS): it dies when that lets go, and nobody waits for it.
        threading.Thread(target=child.wait, name=f"reap-{child.pid}", daemon=True).start()


async def run(
    argv: Sequence[str],
    *,
    deadline: float,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    cwd: str | None = None,
    watch: Watch | None = None,
) -> Completed:
    """Run a program to its end, at most `deadline` seconds. Raises ProgramTimeout; OSError if it cannot start.

    What `watch` raises is raised, with the program killed.
    """
    out, err = os.memfd_create("stdout"), os.memfd_create("stderr")
    try:
        # vfork and exec, about 1 ms: a thread or asyncio's own machinery would cost more.
        child = subprocess.Popen(  # noqa: ASYNC220
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={"PATH": SEARCH_PATH, **(env or {})},
            start_new_session=True,
            pass_fds=tuple(pass_fds),
            cwd=cwd,
        )
        supervised = _supervise(child, argv[0], deadline)
        if watch is None:
            await supervised
        else:
            await _watched(supervised, watch(lambda: _captured(err).decode(errors="replace")))
        return Completed(child.returncode, _captured(out), _captured(err))
    finally:
        os.close(out)
        os.close(err)


async def _watched(program: Awaitable[None], watch: Awaitable[None]) -> None:
    running, watching = asyncio.ensure_future(program), asyncio.ensure_future(watch)
    try:
        await asyncio.wait({running, watching}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()
        await running
    finally:
        running.cancel()
        watching.cancel()
        await asyncio.gather(running, watching, return_exceptions=True)


async def _supervise(child: subprocess.Popen[bytes], name: str, deadline: float) -> None:
    pidfd = os.pidfd_open(child.pid)
    try:
        if not await ended(pidfd, deadline):
            raise ProgramTimeout(f"{os.path.basename(name)} did not end within {deadline:g} s")
        child.wait()
    finally:
        os.close(pidfd)
        if child.returncode is None:
            _kill_session(child)
