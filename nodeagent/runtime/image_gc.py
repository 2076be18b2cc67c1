"""Removes images that nobody uses when the disk gets full, and layers that no image has.

Looks once a minute, and at once when a pull found the disk full. Which go is reclaim.py's; what is in use, the pods'
and the runtime's word. Never ends by a failing disk: it says ImageGCFailed and tries again. What falls short of what
was to be freed is said as FreeDiskSpaceFailed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Set
from contextlib import suppress

from nodeagent.metrics import Metrics
from nodeagent.runtime.images import ImageStore
from nodeagent.runtime.reclaim import Policy, removable, wanted

log = logging.getLogger(__name__)

PERIOD = 60.0
ALL = 1 << 62

Say = Callable[[str, str], None]
"""Takes the reason and the message of a Warning about the node."""


class ImageGc:
    """Of one node. `in_use`: ids of the images that containers have, or are about to have."""

    def __init__(
        self, images: ImageStore, policy: Policy, in_use: Callable[[], Set[str]], say: Say, metrics: Metrics
    ) -> None:
        self._images, self._policy, self._in_use = images, policy, in_use
        self._say, self._metrics = say, metrics
        self._full = asyncio.Event()
        self._turn = asyncio.Lock()
        images.on_full = self._full.set

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._full.clear()
            await self.collect()
            with suppress(TimeoutError):
                async with asyncio.timeout(PERIOD):
                    await self._full.wait()
                await self.reclaim()

    async def collect(self) -> int:
        """Free what the thresholds call for; the bytes that were."""
        try:
            disk = os.statvfs(self._images.layers)
            goal = wanted(self._policy, disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize)
            return await self._free(goal)
        except OSError as error:
            return self._failed(error)

    async def reclaim(self) -> int:
        """Remove every image that may go: something else is short of disk. The bytes that became free."""
        try:
            return await self._free(ALL)
        except OSError as error:
            return self._failed(error)

    def _failed(self, error: OSError) -> int:
        log.error("cannot collect images: %s", error)
        self._say("ImageGCFailed", f"failed to garbage collect images: {error}")
        return 0

    async def _free(self, goal: int) -> int:
        async with self._turn:
            now = time.time()
            await self._images.touch(self._in_use())
            freed = await self._images.sweep(now - self._policy.minimum_age)
            if goal:
                freed += await self._remove(goal - freed, now)
        self._metrics.images_freed.add(by=freed)
        if freed < goal < ALL:
            self._say("FreeDiskSpaceFailed", "Failed to garbage collect required amount of images. Attempted to free "
                      f"{goal} bytes, but only found {freed} bytes eligible to free.")  # fmt: skip
        return freed

    async def _remove(self, goal: int, now: float) -> int:
        freed = 0
        for held in removable(await self._images.held(), self._in_use(), self._policy, now):
            if freed >= goal:
                break
            # Asked again: a pod may have come meanwhile. One that comes from here on has a lease.
            removed = None if held.image.id in self._in_use() else await self._images.remove(held.image.id)
            if removed is None:
                continue
            freed += removed
            self._metrics.images_removed.add()
            log.info("removed image %s, unused since %.0f s", " ".join(held.names) or held.image.id, now - held.used)
        return freed
