"""Watches what is left of the node, says what it is short of, and evicts pods, one at a time.

    every 5 s: observe ─► thresholds crossed? ─► conditions (on at once, off after a while)
                              └► the first that is crossed: rank the pods, evict the first, wait for its end, look again

Pods beyond their own limits of local storage go first. Owns the conditions MemoryPressure, DiskPressure, PIDPressure.
Never ranks (ranking.py) and never stops a pod itself: it posts PodEvicted. A reading that fails (OSError) is
reported, and tried again at the next look.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from nodeagent.paths import Paths
from nodeagent.pods.disk import Disk
from nodeagent.pods.manager import Pods
from nodeagent.pods.state import PodState
from nodeagent.pressure import ranking
from nodeagent.pressure.hold import Hold
from nodeagent.pressure.measure import measure
from nodeagent.pressure.ranking import PodUse
from nodeagent.pressure.signals import observe
from nodeagent.pressure.thresholds import DISK, INODES, RESOURCES, Signal, Threshold
from nodeagent.runtime.containers import ContainerRuntime

log = logging.getLogger(__name__)

LOOK = 5.0
LIMITS_LOOK = 10.0
"""Seconds between two measurements of the pods that have limits of local storage; more where one takes long."""
SHARE = 20
"""Of the time at most one in so many goes into measuring."""
CLEANUP = 30.0
"""Seconds that an evicted pod has to end before the next one goes."""

Say = Callable[[str, str], None]
"""A Warning about the node: its reason and message."""
Reclaim = Callable[[], Awaitable[int]]
"""Frees what no pod needs; the bytes that it has freed."""


class Evictor:
    """Of one node. `attend` gives it the pods, once there are any."""

    def __init__(self, hold: Hold, paths: Paths, disk: Disk, on_change: Callable[[], None], say: Say) -> None:
        self.short: frozenset[str] = frozenset()
        """The pressure conditions that are True."""
        self._hold = hold
        self._paths = paths
        self._disk = disk
        self._on_change = on_change
        self._say = say
        self._pods: Pods | None = None
        self._runtime: ContainerRuntime | None = None
        self._root = ""
        self._reclaim: Reclaim | None = None
        self._limits_due = 0.0

    def attend(self, pods: Pods, runtime: ContainerRuntime, cgroup_root: str, reclaim: Reclaim) -> None:
        """These pods may be evicted from now on, for the sake of the disk only after `reclaim` finds nothing more."""
        self._pods, self._runtime, self._root, self._reclaim = pods, runtime, cgroup_root, reclaim

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                evicted = await self.look()
            except OSError as error:
                log.error("cannot see what the node is short of: %s", error)
                evicted = False
            if not evicted:
                await asyncio.sleep(LOOK)

    async def look(self) -> bool:
        """One round; whether it changed something."""
        signals = await asyncio.to_thread(observe, self._paths.state)
        met = self._hold.met(signals)
        # A disk that takes no writes is short whatever its filesystem's numbers say (a quota).
        also = ["DiskPressure"] if self._disk.problem else []
        short = self._hold.conditions(met, time.monotonic(), also)
        if short != self.short:
            self._take(short)
        if self._pods is None:
            return False
        if await self._beyond_limits(self._pods):
            return True
        return bool(met) and await self._relieve(self._pods, met[0], signals[met[0].signal])

    def _take(self, short: frozenset[str]) -> None:
        for type_ in sorted(short ^ self.short):
            log.warning("%s is now %s", type_, type_ in short)
        self.short = short
        self._on_change()

    async def _relieve(self, pods: Pods, threshold: Threshold, signal: Signal) -> bool:
        """Evict the pod that is first in rank; of a disk, first what no pod needs."""
        self._say("EvictionThresholdMet", f"Attempting to reclaim {RESOURCES[threshold.signal]}")
        disk = threshold.signal in (DISK, INODES)
        if disk and self._reclaim is not None and await self._reclaim():
            return True
        uses = [await self._measure(state, disk=disk) for state in pods.evictable()]
        order = ranking.ranked(uses, threshold.signal)
        if not order:
            return False
        words = ranking.message(order[0], threshold, signal)
        log.warning("the node is short of %s: a pod is evicted", RESOURCES[threshold.signal])
        await self._evict(pods, order[0], words)
        return True

    async def _beyond_limits(self, pods: Pods) -> bool:
        """Evict every pod that keeps more on the disk than its own limits allow."""
        began = time.monotonic()
        if began < self._limits_due:
            return False
        evicted = False
        for state in pods.evictable():
            if not ranking.has_disk_limit(state.pod.spec):
                continue
            use = await self._measure(state, disk=True)
            if words := ranking.beyond_disk_limits(use):
                await self._evict(pods, use, words)
                evicted = True
        ended = time.monotonic()
        self._limits_due = ended + max(LIMITS_LOOK, SHARE * (ended - began))
        return evicted

    async def _measure(self, state: PodState, *, disk: bool) -> PodUse:
        assert self._runtime is not None
        return await asyncio.to_thread(measure, self._runtime, self._paths, self._root, state, disk=disk)

    async def _evict(self, pods: Pods, use: PodUse, words: str) -> None:
        metadata = use.pod.metadata
        log.warning("pod %s/%s is evicted: %s", metadata.namespace, metadata.name, words)
        pods.evict(metadata.uid, words)
        end = time.monotonic() + CLEANUP
        while pods.holds_processes(metadata.uid) and time.monotonic() < end:
            await asyncio.sleep(0.1)
