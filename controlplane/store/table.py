"""The log as one SQLite table: synchronous, and used by one thread only (sqlite.py owns that thread).

One append-only table is store and history. A row names the row of its key that it follows (`previous`), and the
unique index over (key, previous) makes a second successor impossible. The newest rows are also in memory (heads.py):
writes are compared with those, and the index would stop one that was compared wrongly.

Durable by WAL with synchronous=FULL: when `commit` returns, the group has been synced; a process killed inside
it leaves nothing of the group behind. It fails with sqlite3.Error, which it does not interpret, except where
nothing was written (a full disk, a foreign lock): Unavailable.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from operator import attrgetter
from pathlib import Path

from controlplane.store.heads import Group, Head, Row
from controlplane.store.log import Change, Record, Write
from podplane.errors import Conflict, Expired, Unavailable

_FORMAT = 1
# Nothing was written and nothing is in doubt: the next group may succeed.
_NOT_NOW = {
    sqlite3.SQLITE_FULL: "no space left on its disk",
    sqlite3.SQLITE_BUSY: "another program holds a lock on its file",
}
_SCHEMA = (
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    """
    CREATE TABLE log(
        revision INTEGER PRIMARY KEY,
        key      TEXT NOT NULL,
        created  INTEGER NOT NULL,  -- revision of the write that created the object
        previous INTEGER NOT NULL,  -- revision of the key's row before this one; 0 where there is none
        value    BLOB               -- NULL: deleted
    )
    """,
    "CREATE UNIQUE INDEX log_key ON log(key, previous)",
)

_ROWS = 128  # rows in one statement: each statement gives Python's lock away once
_HEADS = """
SELECT key, revision, created, value FROM log AS row
WHERE NOT EXISTS (SELECT 1 FROM log AS next WHERE next.key = row.key AND next.previous = row.revision)
ORDER BY revision
"""
_CHANGES = """
SELECT row.key, row.revision, row.created, row.value, before.value
FROM log AS row LEFT JOIN log AS before ON before.revision = row.previous
WHERE row.revision > ? ORDER BY row.revision LIMIT ?
"""
# The row that a change after the compacted revision replaced stays: it is that change's previous value.
_SWEEP = """
DELETE FROM log AS row WHERE revision > :low AND revision <= :high AND (value IS NULL OR EXISTS (
    SELECT 1 FROM log AS next
    WHERE next.key = row.key AND next.previous = row.revision AND next.revision <= :compacted))
"""


class LogTable:
    """An open store file. Raises Unavailable where the file was written by a newer version."""

    def __init__(self, path: Path) -> None:
        # SQLite gives the WAL and its index the mode of the main file: create that one closed to others.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        # Each number of rows is a statement of its own: let them all stay prepared.
        self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0, cached_statements=2 * _ROWS)
        self._heads: dict[str, Head] = {}
        self._deleted: deque[tuple[int, str]] = deque()
        """Deletions that compaction has not swept yet: revision and key, in order."""
        try:
            self._prepare(path)
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, path: Path) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", f"journal_size_limit={64 << 20}"):
            self._db.execute(f"PRAGMA {pragma}")
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found > _FORMAT:
            raise Unavailable(f"cannot open {path}: its format {found} is newer than this version reads ({_FORMAT})")
        if found == 0:
            self._create()
        meta = dict(self._db.execute("SELECT name, value FROM meta"))
        self.cluster_id: str = meta["cluster_id"]
        self.epoch: str = meta["epoch"]
        self.compacted: int = meta["compacted"]
        newest = self._db.execute("SELECT max(revision) FROM log").fetchone()[0] or 0
        # The newest row may have been a deletion that compaction took away: its revision must not come again.
        self.revision: int = max(newest, self.compacted)
        for key, revision, created, value in self._db.execute(_HEADS):
            self._heads[key] = Head(revision, created, value)
            if value is None:
                self._deleted.append((revision, key))

    def _create(self) -> None:
        with self._transaction():
            for statement in _SCHEMA:
                self._db.execute(statement)
            values = {"cluster_id": str(uuid.uuid4()), "epoch": str(uuid.uuid4()), "compacted": 0}
            self._db.executemany("INSERT INTO meta VALUES (?, ?)", values.items())
            self._db.execute(f"PRAGMA user_version={_FORMAT}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of the block, synced, or nothing of it."""
        with _not_now():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def commit(self, transactions: Sequence[Sequence[Write]]) -> list[list[Change] | Conflict]:
        """Commit a group in one sync. A transaction whose precondition fails yields its Conflict, alone."""
        group = Group(self._heads, self.revision)
        outcomes: list[list[Change] | Conflict] = []
        for transaction in transactions:
            try:
                outcomes.append(group.add(transaction))
            except Conflict as conflict:
                outcomes.append(conflict)
        self._insert(group.rows)
        self._heads.update(group.fresh)
        self._deleted.extend((row.revision, row.key) for row in group.rows if row.value is None)
        self.revision = group.revision
        return outcomes

    def _insert(self, rows: Sequence[Row]) -> None:
        """All rows or none, synced. Up to _ROWS of them are one statement, which is a transaction by itself."""
        if not rows:
            return
        if len(rows) <= _ROWS:
            with _not_now():
                self._insert_some(rows)
            return
        with self._transaction():
            for at in range(0, len(rows), _ROWS):
                self._insert_some(rows[at : at + _ROWS])

    def _insert_some(self, rows: Sequence[Row]) -> None:
        self._db.execute(_insert_of(len(rows)), tuple(itertools.chain.from_iterable(rows)))

    def load(self, prefix: str) -> tuple[list[Record], int]:
        """Live records below `prefix` in key order, and the revision of that state."""
        found = [
            Record(key, head.value, head.revision, head.created)
            for key, head in self._heads.items()
            if head.value is not None and key.startswith(prefix)
        ]
        return sorted(found, key=attrgetter("key")), self.revision

    def changes(self, after: int, limit: int) -> list[Change]:
        """Changes above `after`; Expired where some of them are compacted."""
        if after < self.compacted:
            raise Expired(
                f"the changes after revision {after} are compacted: list again, or start from {self.compacted}",
                oldest=self.compacted,
            )
        return [Change(*row) for row in self._db.execute(_CHANGES, (after, limit))]

    def mark_compacted(self, revision: int) -> None:
        """First step of a compaction: from now on changes up to `revision` are refused. Rows go with `sweep`."""
        with self._transaction():
            self._db.execute("UPDATE meta SET value = ? WHERE name = 'compacted'", (revision,))
        self.compacted = revision

    def sweep(self, low: int, count: int) -> int | None:
        """Delete what is forgotten among the next `count` rows above `low`; where to go on, None at the end."""
        row = self._db.execute(
            "SELECT max(revision) FROM (SELECT revision FROM log WHERE revision > ? AND revision <= ?"
            " ORDER BY revision LIMIT ?)",
            (low, self.compacted, count),
        ).fetchone()
        high: int | None = row[0]
        if high is not None:
            with self._transaction():
                self._db.execute(_SWEEP, {"low": low, "high": high, "compacted": self.compacted})
            self._forget_deleted(high)
        return high

    def _forget_deleted(self, high: int) -> None:
        """Every row of a key that was deleted up to `high` is swept: its next row follows none."""
        while self._deleted and self._deleted[0][0] <= high:
            revision, key = self._deleted.popleft()
            if self._heads[key].revision == revision:
                del self._heads[key]

    def close(self) -> None:
        self._db.close()


@cache
def _insert_of(rows: int) -> str:
    return f"INSERT INTO log(revision, key, created, previous, value) VALUES {', '.join(['(?, ?, ?, ?, ?)'] * rows)}"


@contextmanager
def _not_now() -> Iterator[None]:
    """Unavailable where SQLite says that nothing was written and the next try may succeed."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode in _NOT_NOW:
            raise Unavailable(f"cannot write to the store: {_NOT_NOW[error.sqlite_errorcode]}") from error
        raise
