"""The newest events of one kind, and the cursors that read them.

Owns the order of one kind's events and the waking of its watchers. A watcher is a cursor into the ring, not a
queue: one that does not read costs nothing and holds nobody up; where the ring has gone past its cursor it ends
with Expired and the revision that it had reached.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right

from controlplane.store.stored import Event
from podplane.errors import Expired

BATCH = 64
_GATHER = 0.001  # seconds that events are gathered for, when they come faster than that


class Ring:
    """The last `size` events of a kind. `base` is the revision after which it has every one."""

    def __init__(self, size: int, base: int) -> None:
        self._slots: list[Event | None] = [None] * size
        self._size = size
        self._base = base
        self.head = 0  # events ever appended: the cursor of one who has read everything
        self.waiting: set[asyncio.Future[None]] = set()
        """Of the watchers that have read everything: each is woken once."""
        self._flushed = 0  # head when watchers were last woken
        self._timer: asyncio.TimerHandle | None = None
        self._last_wake = 0.0

    @property
    def tail(self) -> int:
        """The oldest cursor that can still be read."""
        return max(0, self.head - self._size)

    @property
    def oldest(self) -> int:
        """The oldest revision after which the ring has everything."""
        return self._base

    def append(self, event: Event) -> None:
        slot = self.head % self._size
        dropped = self._slots[slot]
        if dropped is not None:
            self._base = dropped.stored.revision
        self._slots[slot] = event
        self.head += 1

    def read(self, cursor: int, limit: int = BATCH) -> list[Event]:
        """Up to `limit` events from `cursor` on; the cursor must not be below `tail`."""
        return [self._at(position) for position in range(cursor, min(cursor + limit, self.head))]

    def cursor_after(self, revision: int) -> int:
        """The cursor of the first event after `revision`; Expired where the ring no longer reaches back there."""
        if revision < self._base:
            raise Expired(f"the changes after revision {revision} are no longer held: list again", oldest=self._base)
        positions = range(self.tail, self.head)
        return self.tail + bisect_right(positions, revision, key=lambda at: self._at(at).stored.revision)

    def _at(self, position: int) -> Event:
        event = self._slots[position % self._size]
        assert event is not None, "a cursor between tail and head has an event"
        return event

    def notify(self) -> None:
        """Wake the watchers: at once after a quiet millisecond or with a full batch, else when it is over."""
        if not self.waiting:
            return
        loop = asyncio.get_running_loop()
        due = self._last_wake + _GATHER
        if self.head - self._flushed >= BATCH or loop.time() >= due:
            self._wake(loop)
        elif self._timer is None:
            self._timer = loop.call_at(due, self._wake, loop)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._last_wake, self._flushed = loop.time(), self.head
        for woken in self.waiting:
            if not woken.done():
                woken.set_result(None)
        self.waiting.clear()
