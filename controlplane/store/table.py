"""The log as one SQLite table: synchronous, and used by one thread only (sqlite.py owns that thread).

One append-only table is store and history. A row names the row of its key that it follows (`previous`), and the
unique index over (key, previous) makes a second successor impossible: that is the compare-and-set. The newest
row of a key is the one with the highest `previous`.

Durable by WAL with synchronous=FULL: when `commit` returns, the group has been synced; a process killed inside
it leaves nothing of the group behind. It fails with sqlite3.Error, which it does not interpret, except where
nothing was written (a full disk, a foreign lock): Unavailable.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from controlplane.store.log import Change, Record, Write
from podplane.errors import Conflict, Expired, Unavailable

_FORMAT = 1
# Nothing was written and nothing is in doubt: the next group may succeed.
_NOT_NOW = {
    sqlite3.SQLITE_FULL: "no space left on its disk",
    sqlite3.SQLITE_BUSY: "another program holds a lock on its file",
}
_LAST_CHARACTER = "\U0010ffff"

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

_HEAD = "SELECT revision, created, value FROM log WHERE key = ? ORDER BY previous DESC LIMIT 1"
_INSERT = "INSERT INTO log(revision, key, created, previous, value) VALUES (?, ?, ?, ?, ?)"
_LIVE = """
SELECT key, value, revision, created FROM log AS row
WHERE key >= ? AND key < ? AND value IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM log AS next WHERE next.key = row.key AND next.previous = row.revision)
ORDER BY key
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
        self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
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
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode in _NOT_NOW:
                raise Unavailable(f"cannot write to the store: {_NOT_NOW[error.sqlite_errorcode]}") from error
            raise

    def commit(self, transactions: Sequence[Sequence[Write]]) -> list[list[Change] | Conflict]:
        """Commit a group in one sync. A transaction whose precondition fails yields its Conflict, alone."""
        before = self.revision
        try:
            with self._transaction():
                return [self._attempt(transaction) for transaction in transactions]
        except BaseException:
            self.revision = before
            raise

    def _attempt(self, transaction: Sequence[Write]) -> list[Change] | Conflict:
        if len(transaction) == 1:  # checked before it writes: nothing to take back
            try:
                return [self._write(transaction[0])]
            except Conflict as conflict:
                return conflict
        before = self.revision
        self._db.execute("SAVEPOINT attempt")
        try:
            return [self._write(write) for write in transaction]
        except Conflict as conflict:
            self._db.execute("ROLLBACK TO attempt")
            self.revision = before
            return conflict
        finally:
            if self._db.in_transaction:
                self._db.execute("RELEASE attempt")

    def _write(self, write: Write) -> Change:
        row = self._db.execute(_HEAD, (write.key,)).fetchone()
        previous, created, value = row or (0, 0, None)
        live = 0 if value is None else previous
        if write.expected is not None and write.expected != live:
            found = f"is at revision {live}" if live else "does not exist"
            raise Conflict(f"cannot write {write.key}: expected revision {write.expected}, but it {found}")
        if write.value is None and not live:
            raise Conflict(f"cannot delete {write.key}: it does not exist")
        revision = self.revision + 1
        created = created if live else revision
        self._db.execute(_INSERT, (revision, write.key, created, previous, write.value))
        self.revision = revision
        return Change(write.key, revision, created, write.value, value)

    def load(self, prefix: str) -> tuple[list[Record], int]:
        """Live records below `prefix` in key order, and the revision of that state."""
        rows = self._db.execute(_LIVE, (prefix, prefix + _LAST_CHARACTER))
        return [Record(key, value, revision, created) for key, value, revision, created in rows], self.revision

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
        return high

    def close(self) -> None:
        self._db.close()
