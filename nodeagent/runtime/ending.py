"""Ending processes: everything in a cgroup, and a conmon that is in the way. Each waits on pidfds, with a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterable

from nodeagent import syscalls
from nodeagent.runtime.cgroups import Cgroups
from nodeagent.runtime.conmon import Files
from nodeagent.runtime.process import ended
from nodeagent.runtime.supervision import living_conmon
from nodeagent.types import RuntimeFailure

_CONMON_GRACE = 2.0


async def kill_cgroup(cgroups: Cgroups, cgroup: str, deadline: float) -> None:
    """Kill all that is in a cgroup and wait until nothing is. Raises RuntimeFailure after `deadline` seconds."""
    limit = time.monotonic() + deadline
    # Whether anybody is there is read at once, in less time than a thread takes; killing may wait for a freezer.
    while cgroups.processes(cgroup) and (pids := await asyncio.to_thread(cgroups.kill, cgroup)):
        if not await _all_ended(pids, limit):
            message = f"processes {sorted(pids)} did not end within {deadline:g} s of SIGKILL"
            raise RuntimeFailure("KillContainerError", message)


async def _all_ended(pids: Iterable[int], limit: float) -> bool:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            pidfd = syscalls.pidfd_open(pid)
            try:
                if not await ended(pidfd, max(0.0, limit - time.monotonic())):
                    return False
            finally:
                os.close(pidfd)
    return time.monotonic() < limit


async def end_conmon(files: Files) -> bool:
    """Wait for a conmon whose container is gone; True where it had to be killed, with the runtime that it runs.

    Killed is one that is stuck (its disk is full), and at once one whose container was never created.
    """
    pidfd = living_conmon(files)
    if pidfd is None:
        return False
    try:
        if await ended(pidfd, _CONMON_GRACE if files.pid.exists() else 0.0):
            return False
        # conmon leads a process group, in which is a runtime that hangs; the container's processes are in others.
        with contextlib.suppress(ProcessLookupError, ValueError):
            os.killpg(int(files.conmon_pid.read_text()), signal.SIGKILL)
        await ended(pidfd, _CONMON_GRACE)
    finally:
        os.close(pidfd)
    return True
