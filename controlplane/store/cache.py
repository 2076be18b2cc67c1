"""The watch cache: every object of every kind in memory, and what happened to it lately.

Owns the in-memory state and one ring of events per kind, fed by one subscription to the log. It never writes and
never reads the log again after it was opened. A list and a watch taken in one step of the event loop have no
hole between them: both are of `revision`.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence

from controlplane.store.log import Change, Log
from controlplane.store.ring import BATCH, Ring
from controlplane.store.stored import Event, Stored, key_of
from podplane.errors import Expired
from podplane.kinds import KINDS, Kind

__all__ = ["RING", "Event", "Stored", "Subscription", "WatchCache", "key_of"]

RING = 4096
"""Events kept per kind."""

_CHANGES_PAGE = 1000


class Subscription:
    """A watch: `async for batch in subscription`. Ends with Expired where it reads too slowly, quietly on `close`."""

    def __init__(self, ring: Ring, cursor: int, revision: int, prefix: str) -> None:
        self._ring = ring
        self._cursor = cursor
        self._prefix = prefix
        self._ended = False
        self._woken: asyncio.Future[None] | None = None
        self.revision = revision
        """Everything up to here has been handed out: where a new watch may resume."""

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> list[Event]:
        """The next 1 to 64 events, in the order of their revisions."""
        while not self._ended:
            if self._cursor == self._ring.head:
                await self._wait()
            elif batch := self._read():
                return batch
        raise StopAsyncIteration

    async def _wait(self) -> None:
        self._woken = asyncio.get_running_loop().create_future()
        self._ring.waiting.add(self._woken)
        try:
            await self._woken
        finally:
            self._ring.waiting.discard(self._woken)
            self._woken = None

    def _read(self) -> list[Event]:
        if self._cursor < self._ring.tail:
            self.close()
            raise Expired(
                f"the watch was too slow and is closed: everything up to revision {self.revision} was sent",
                oldest=self.revision,
            )
        events = self._ring.read(self._cursor, BATCH)
        self._cursor += len(events)
        if events:
            self.revision = events[-1].revision
        return [event for event in events if event.stored.key.startswith(self._prefix)]

    def close(self) -> None:
        """End it: the reader's loop finishes. Safe to do twice."""
        self._ended = True
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)


class _Shelf:
    """The objects of one kind, and their keys in order."""

    def __init__(self, kind: Kind, size: int, base: int) -> None:
        self.kind = kind
        self.objects: dict[str, Stored] = {}
        self.keys: list[str] = []
        self.ring = Ring(size, base)

    def load(self, stored: Stored) -> None:
        """Take an object of the start; they come in key order."""
        self.objects[stored.key] = stored
        self.keys.append(stored.key)

    def apply(self, change: Change) -> None:
        """Take a change in: the state first, then its event."""
        before = self.objects.get(change.key)
        event = event_of(self.kind, change, before)
        if event.type != "DELETED":
            self.objects[change.key] = event.stored
            if before is None:
                insort(self.keys, change.key)
        elif before is not None:
            del self.objects[change.key]
            del self.keys[bisect_left(self.keys, change.key)]
        self.ring.append(event)

    def below(self, prefix: str) -> list[Stored]:
        low = bisect_left(self.keys, prefix)
        high = bisect_left(self.keys, prefix + "\U0010ffff")
        return [self.objects[key] for key in self.keys[low:high]]


def event_of(kind: Kind, change: Change, before: Stored | None) -> Event:
    """The event of a change; `before` is the object that it replaced or removed, where the cache has it."""
    if before is None and change.previous is not None:
        before = Stored(kind, change.key, 0, change.created, change.previous)
    if change.value is None:
        last = change.previous or b""
        return Event("DELETED", Stored(kind, change.key, change.revision, change.created, last), before)
    stored = Stored(kind, change.key, change.revision, change.created, change.value)
    return Event("MODIFIED" if before else "ADDED", stored, before)


class WatchCache:
    """Open it with `WatchCache.open`; all methods belong to the event loop that opened it."""

    def __init__(self, size: int = RING) -> None:
        self._size = size
        self._shelves: dict[str, _Shelf] = {}
        self._early: list[Change] | None = []
        self._unsubscribe: Callable[[], None] | None = None
        self.revision = 0

    @classmethod
    async def open(cls, log: Log, size: int = RING) -> WatchCache:
        """Load every object, and the last `size` changes so that watches resume across a restart."""
        cache = cls(size)
        # Subscribe, then load, then drop what the load had already: no hole.
        cache._unsubscribe = log.subscribe(cache._deliver)
        records, revision = await log.load()
        base = max(log.compacted, revision - size)
        cache._shelves = {kind.plural: _Shelf(kind, size, base) for kind in KINDS.values()}
        for record in records:
            if shelf := cache._shelf_of(record.key):
                shelf.load(Stored(shelf.kind, record.key, record.revision, record.created, record.value))
        await cache._recall(log, base, revision)
        cache.revision = revision
        early, cache._early = cache._early or [], None
        cache._deliver([change for change in early if change.revision > revision])
        return cache

    async def _recall(self, log: Log, after: int, until: int) -> None:
        """Put the events of (after, until] into the rings."""
        states: dict[str, Stored] = {}
        while after < until:
            page = await log.changes(after, _CHANGES_PAGE)
            if not page:
                return
            for change in page:
                after = change.revision
                if after > until:
                    return
                if shelf := self._shelf_of(change.key):
                    event = event_of(shelf.kind, change, states.pop(change.key, None))
                    shelf.ring.append(event)
                    if event.type != "DELETED":
                        states[change.key] = event.stored

    def _shelf_of(self, key: str) -> _Shelf | None:
        """None for keys that are not of a kind (tokens)."""
        return self._shelves.get(key.partition("/")[0])

    def _deliver(self, changes: Sequence[Change]) -> None:
        if self._early is not None:
            self._early.extend(changes)
            return
        touched: dict[str, Ring] = {}
        for change in changes:
            self.revision = change.revision
            if shelf := self._shelf_of(change.key):
                shelf.apply(change)
                touched[shelf.kind.plural] = shelf.ring
        for ring in touched.values():
            ring.notify()

    def get(self, kind: Kind, namespace: str, name: str) -> Stored | None:
        return self._shelves[kind.plural].objects.get(key_of(kind, namespace, name))

    def list(self, kind: Kind, namespace: str | None = None) -> list[Stored]:
        """All of a kind, or of one namespace, in key order, at `revision`. The list is the caller's."""
        shelf = self._shelves[kind.plural]
        return shelf.below(_prefix(kind, namespace))

    def count(self, kind: Kind) -> int:
        """How many objects of a kind there are."""
        return len(self._shelves[kind.plural].keys)

    def watch(self, kind: Kind, after: int | None = None, namespace: str | None = None) -> Subscription:
        """Events after a revision; None: from now on, without a hole after a list in the same loop step.

        Expired where the revision is older than the ring, or newer than the store (the store was restored).
        """
        ring = self._shelves[kind.plural].ring
        if after is None:
            return Subscription(ring, ring.head, self.revision, _prefix(kind, namespace))
        if after > self.revision:
            raise Expired(f"revision {after} is not of this store, whose newest is {self.revision}: list again")
        return Subscription(ring, ring.cursor_after(after), after, _prefix(kind, namespace))

    def close(self) -> None:
        """Take no more changes."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None


def _prefix(kind: Kind, namespace: str | None) -> str:
    return f"{kind.plural}/{namespace}/" if namespace else f"{kind.plural}/"
