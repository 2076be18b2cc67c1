"""Moves conmons from the agent's cgroup, in which they begin, to one of their own: what they take is not the agent's.

Some seconds later, all at once: nobody waits for it, while the kernel moves a process no other can be begun, and of
most init containers there is no conmon any more by then. One that an agent did not come to move is moved by the next.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence

from nodeagent import smallfiles
from nodeagent.runtime.cgroups import Cgroups
from nodeagent.runtime.conmon import Files
from nodeagent.runtime.supervision import living_conmon

_AFTER = 5.0
logger = logging.getLogger(__name__)


class Settling:
    """The conmons that are still to be moved to a cgroup."""

    def __init__(self, cgroups: Cgroups, cgroup: str) -> None:
        self._cgroups, self._cgroup = cgroups, cgroup
        self._waiting: list[Files] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, files: Files) -> None:
        """Have a container's conmon moved."""
        self._waiting.append(files)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._move_all(), name="move conmons")

    async def close(self) -> None:
        """Move none any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _move_all(self) -> None:
        while self._waiting:
            await asyncio.sleep(_AFTER)
            waiting, self._waiting = self._waiting, []
            await asyncio.to_thread(self._move, waiting)

    def _move(self, waiting: Sequence[Files]) -> None:
        for files in waiting:
            pidfd = living_conmon(files)
            if pidfd is None:
                continue
            try:
                self._cgroups.enter(self._cgroup, int(smallfiles.read(files.conmon_pid)))
            except (OSError, ValueError) as error:
                logger.debug("cannot move the conmon of %s: %s", files.id, error)
            finally:
                os.close(pidfd)
