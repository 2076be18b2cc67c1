"""A queue of keys to look at: each key waits once, is worked on by one worker at a time, and is retried with back-off.

The semantics are those of client-go's work queue: a key added while it is being worked on is taken again after
that. It holds keys only: whoever takes one reads the newest state, so that nothing queued is ever stale.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

FIRST_RETRY, LONGEST_RETRY = 0.05, 30.0


def backoff(failures: int) -> float:
    """Seconds until the try after so many failures in a row (1 or more)."""
    return float(min(FIRST_RETRY * 2 ** min(failures - 1, 16), LONGEST_RETRY))


class WorkQueue(Generic[Key]):
    """Belongs to one event loop. Delays run on the loop's clock."""

    def __init__(self) -> None:
        self._ready: deque[Key] = deque()
        self._dirty: set[Key] = set()
        self._working: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        return len(self._dirty)

    def add(self, key: Key) -> None:
        """Look at the key soon."""
        self._cancel(key)
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._working:
            self._push(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Look at the key in so many seconds, or earlier where that was asked for already."""
        if seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        due, timer = loop.time() + seconds, self._timers.get(key)
        if key in self._dirty or (timer is not None and timer.when() <= due):
            return
        self._cancel(key)
        self._timers[key] = loop.call_at(due, self.add, key)

    async def get(self) -> Key:
        """The next key; `done` must follow."""
        while not self._ready:
            self._arrived.clear()
            await self._arrived.wait()
        key = self._ready.popleft()
        self._dirty.discard(key)
        self._working.add(key)
        return key

    def done(self, key: Key) -> None:
        """The key is worked on no more."""
        self._working.discard(key)
        if key in self._dirty:
            self._push(key)

    def succeeded(self, key: Key) -> None:
        """Its next failure is a first one again."""
        self._failures.pop(key, None)

    def failed(self, key: Key) -> float:
        """Try it again after its back-off; returns that, in seconds."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = backoff(failures)
        self.add_after(key, delay)
        return delay

    def close(self) -> None:
        """Cancel all timers."""
        for key in list(self._timers):
            self._cancel(key)

    def _push(self, key: Key) -> None:
        self._ready.append(key)
        self._arrived.set()

    def _cancel(self, key: Key) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()
