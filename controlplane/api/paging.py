"""Consistent lists in pages: the first page takes a snapshot, the continue tokens read on in it.

Owns the snapshots, which hold references to stored objects, not copies; the oldest are dropped beyond a bound or
an age, and their tokens then fail with Expired. A page ends at the client's limit or at 3 MiB, whichever is first.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from controlplane.api import wire
from controlplane.store.stored import Stored
from podplane.errors import Expired, Invalid
from podplane.kinds import Kind
from podplane.v1 import meta_pb2

PAGE_BYTES = 3 * 1024 * 1024
SNAPSHOTS = 256
SNAPSHOT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Query:
    """What is listed, and for whom: a continue token is good for the same query only."""

    kind: str
    namespace: str
    labels: str
    fields: str
    username: str


@dataclass(slots=True)
class _Snapshot:
    query: Query
    items: Sequence[Stored]
    revision: int
    used: float


class Pager:
    """Cuts lists into pages and remembers the rest."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._snapshots: OrderedDict[str, _Snapshot] = OrderedDict()

    def first(self, kind: Kind, query: Query, items: Sequence[Stored], revision: int, limit: int) -> bytes:
        """The first page of `items`, which are consistent at `revision`. `limit` 0: as many as fit."""
        return self._page(kind, "", _Snapshot(query, items, revision, self._clock()), 0, limit)

    def more(self, kind: Kind, query: Query, token: str, limit: int) -> bytes:
        """The page that a continue token means."""
        identifier, _, offset = token.partition(".")
        if not offset.isascii() or not offset.isdigit() or len(offset) > 18:
            raise Invalid("continue: the token is not one that this server gave")
        self._forget()
        snapshot = self._snapshots.get(identifier)
        if snapshot is None:
            raise Expired("the continue token is too old, or of a server before its restart: list again from the start")
        if snapshot.query != query:
            raise Invalid("continue: the token belongs to another list; namespace and selectors must stay the same")
        snapshot.used = self._clock()
        self._snapshots.move_to_end(identifier)
        return self._page(kind, identifier, snapshot, int(offset), limit)

    def _page(self, kind: Kind, identifier: str, snapshot: _Snapshot, start: int, limit: int) -> bytes:
        items, end = _cut(snapshot.items, start, limit)
        metadata = meta_pb2.ListMeta(resourceVersion=str(snapshot.revision))
        remaining = len(snapshot.items) - end
        if remaining > 0:
            identifier = identifier or self._keep(snapshot)
            setattr(metadata, "continue", f"{identifier}.{end}")
            metadata.remainingItemCount = remaining
        return wire.page(kind, items, metadata)

    def _keep(self, snapshot: _Snapshot) -> str:
        self._forget()
        identifier = secrets.token_hex(16)
        self._snapshots[identifier] = snapshot
        return identifier

    def _forget(self) -> None:
        oldest = self._clock() - SNAPSHOT_SECONDS
        while self._snapshots:
            first = next(iter(self._snapshots.values()))
            if first.used >= oldest and len(self._snapshots) < SNAPSHOTS:
                return
            self._snapshots.popitem(last=False)


def _cut(items: Sequence[Stored], start: int, limit: int) -> tuple[list[bytes], int]:
    """The encoded items of one page and the index after its last; at least one, however large it is."""
    encoded: list[bytes] = []
    size, index = 0, start
    bound = len(items) if limit <= 0 else min(len(items), start + limit)
    while index < bound:
        one = wire.item(items[index].wire)
        if encoded and size + len(one) > PAGE_BYTES:
            break
        encoded.append(one)
        size += len(one)
        index += 1
    return encoded, index
