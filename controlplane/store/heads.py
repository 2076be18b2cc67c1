"""The newest row of every key, in memory, and what a group of transactions makes of them. Pure.

A write is checked against the heads, not by a query: each query would give Python's lock away and wait for it, as
often as there are writes in a group. The values are the very bytes that the cache holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from controlplane.store.log import Change, Write
from podplane.errors import Conflict


class Head(NamedTuple):
    """A key's newest row. `value` None: the key is deleted, and the next row has to follow the deletion."""

    revision: int
    created: int
    value: bytes | None


class Row(NamedTuple):
    """A row to be inserted: the log's columns. `previous` is the revision of the key's row before, 0 for none."""

    revision: int
    key: str
    created: int
    previous: int
    value: bytes | None


_NONE = Head(0, 0, None)


class Group:
    """Transactions that are written together. `heads` is not changed: `fresh` is what to add once they are on disk."""

    def __init__(self, heads: Mapping[str, Head], revision: int) -> None:
        self._heads = heads
        self.revision = revision
        self.fresh: dict[str, Head] = {}
        self.rows: list[Row] = []

    def add(self, transaction: Sequence[Write]) -> list[Change]:
        """Its changes, after those added before; Conflict, and nothing of it is added, where a precondition fails."""
        revision, own = self.revision, dict[str, Head]()
        rows: list[Row] = []
        changes: list[Change] = []
        for write in transaction:
            key = write.key
            head = own.get(key) or self.fresh.get(key) or self._heads.get(key, _NONE)
            _check(write, head)
            revision += 1
            created = revision if head.value is None else head.created
            own[key] = Head(revision, created, write.value)
            rows.append(Row(revision, key, created, head.revision, write.value))
            changes.append(Change(key, revision, created, write.value, head.value))
        self.revision = revision
        self.fresh.update(own)
        self.rows += rows
        return changes


def _check(write: Write, head: Head) -> None:
    live = 0 if head.value is None else head.revision
    if write.expected is not None and write.expected != live:
        found = f"is at revision {live}" if live else "does not exist"
        raise Conflict(f"cannot write {write.key}: expected revision {write.expected}, but it {found}")
    if write.value is None and not live:
        raise Conflict(f"cannot delete {write.key}: it does not exist")
