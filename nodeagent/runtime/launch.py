"""Starting conmon, and waiting for what it says of the container that it creates.

conmon gets a regular file as its sync pipe, watched by inotify: a pipe would break when the agent dies during a start
and take conmon along. Never kills what it has started: who calls removes the container as a whole.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

from nodeagent import smallfiles
from nodeagent.runtime import conmon, crun, inotify
from nodeagent.runtime.conmon import Files, Programs
from nodeagent.runtime.process import run
from nodeagent.runtime.supervision import living_conmon
from nodeagent.types import ContainerRequest, RuntimeFailure


class Launcher:
    """Creates containers. `deadline`: seconds for conmon and the runtime together. `sealed`: see crun.py."""

    def __init__(self, programs: Programs, sealed: int | None, events: inotify.Inotify, deadline: float) -> None:
        self._programs, self._sealed, self._events, self._deadline = programs, sealed, events, deadline

    def close(self) -> None:
        if self._sealed is not None:
            os.close(self._sealed)
            self._sealed = None

    async def create(self, request: ContainerRequest, files: Files, log: Path) -> int:
        """Run conmon, which creates the container; returns the container's pid. Raises RuntimeFailure, OSError."""
        loop = asyncio.get_running_loop()
        limit = loop.time() + self._deadline
        runtime = self._programs.runtime if self._sealed is None else crun.path(self._sealed)
        argv = conmon.command(self._programs, runtime, files, request, log)
        sync = os.open(files.sync, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            given = [sync] if self._sealed is None else [sync, self._sealed]
            # conmon makes its console socket in TMPDIR: /tmp is everybody's.
            env = {"_OCI_SYNCPIPE": str(sync), "TMPDIR": str(files.attach.parent)}
            # In the bundle, since conmon writes its `oom` file into its working directory too.
            done = await run(argv, deadline=self._deadline, env=env, pass_fds=given, cwd=str(files.bundle))
        finally:
            os.close(sync)
        if done.code != 0:
            raise RuntimeFailure("CreateContainerError", f"conmon failed: {done.words}")
        pidfd = living_conmon(files)
        try:
            return await self._answer(files, pidfd, limit - loop.time())
        except TimeoutError:
            message = f"the runtime did not create the container within {self._deadline:g} s"
            raise RuntimeFailure("CreateContainerError", message) from None
        finally:
            if pidfd is not None:
                os.close(pidfd)

    async def _answer(self, files: Files, pidfd: int | None, deadline: float) -> int:
        """Wait until conmon has written its line, or is gone."""
        loop = asyncio.get_running_loop()
        changed: asyncio.Queue[None] = asyncio.Queue()

        def wake() -> None:
            changed.put_nowait(None)

        watch = self._events.watch(files.sync, inotify.IN_MODIFY, lambda _mask, _name: wake())
        if pidfd is not None:
            loop.add_reader(pidfd, _once(loop, pidfd, wake))
        try:
            async with asyncio.timeout(deadline):
                while True:
                    alive = pidfd is not None and not _gone(pidfd)
                    pid = conmon.answer(smallfiles.read(files.sync).decode())
                    if pid is not None:
                        return pid
                    if not alive:
                        raise RuntimeFailure("CreateContainerError", "conmon ended before the container was created")
                    await changed.get()
        finally:
            self._events.forget(watch)
            if pidfd is not None:
                loop.remove_reader(pidfd)


def _once(loop: asyncio.AbstractEventLoop, pidfd: int, wake: Callable[[], None]) -> Callable[[], None]:
    def woken() -> None:
        # An ended process stays readable.
        loop.remove_reader(pidfd)
        wake()

    return woken


def _gone(pidfd: int) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return True
    return False
