"""The log's embedded driver: one SQLite file, one writer thread, group commit.

Owns the directory's lock, the thread and the hand-over of results to the event loop; table.py owns the SQL.
Writers put their transactions into a queue; the thread takes all that are there, commits them as one SQLite
transaction (one fsync), and hands the whole group back with one wake-up of the loop: subscribers first, then the
writers' futures.

Nothing is acknowledged before it is synced. An error of the disk (fsync above all: the kernel may have dropped
the dirty pages, so trying again would lie) ends the log for good: `failed` gets the reason, every write that
waits or comes later raises Unavailable, and the daemon is to exit. A full disk refuses single groups only.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from controlplane.store.lock import DirectoryLock
from controlplane.store.log import Change, Record, Write
from controlplane.store.table import LogTable
from podplane.errors import Invalid, PodplaneError, Unavailable

_GROUP = 1024  # transactions in one SQLite transaction: bounds the wait of the first one
_SWEEP_ROWS = 2000  # rows that one step of a compaction looks at: writes go in between

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Commit:
    transaction: Sequence[Write]
    done: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Call:
    """Anything else that the thread does with the table: load, changes, compaction."""

    function: Callable[[LogTable], Any]
    done: asyncio.Future[Any]


class SqliteLog:
    """A `Log`. Open it with `SqliteLog.open`; all methods belong to the event loop that opened it."""

    def __init__(self, directory: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._directory = directory
        self._loop = loop
        self._queue: queue.SimpleQueue[_Commit | _Call | None] = queue.SimpleQueue()
        self._subscribers: list[Callable[[Sequence[Change]], None]] = []
        self._opened: asyncio.Future[None] = loop.create_future()
        self._closed: asyncio.Future[None] = loop.create_future()
        self._closing = False
        self._revision = 0
        self._compacted = 0
        self.cluster_id = ""
        self.epoch = ""
        self.failed: asyncio.Future[str] = loop.create_future()
        """Done, with the reason, once no write can succeed any more: the daemon waits for it and exits."""

    @classmethod
    async def open(cls, directory: Path) -> SqliteLog:
        """Open or make the store in `directory`; Unavailable where another process has it or it cannot be read."""
        log = cls(directory, asyncio.get_running_loop())
        # A daemon thread: a loop that dies without close() must not keep the process. Every commit is whole anyway.
        threading.Thread(target=log._run, name="store-writer", daemon=True).start()
        await log._opened
        return log

    @property
    def revision(self) -> int:
        return self._revision

    @property
    def compacted(self) -> int:
        return self._compacted

    async def commit(self, transaction: Sequence[Write]) -> Sequence[Change]:
        """Commit durably; Conflict where a precondition fails. Cancelled while it waits, it may still happen."""
        if not transaction:
            raise Invalid("cannot commit: a transaction has at least one write")
        changes: Sequence[Change] = await self._submit(_Commit(transaction, self._loop.create_future()))
        return changes

    async def load(self, prefix: str = "") -> tuple[Sequence[Record], int]:
        return await self._call(lambda table: table.load(prefix))

    async def changes(self, after: int, limit: int = 1000) -> Sequence[Change]:
        return await self._call(lambda table: table.changes(after, limit))

    def subscribe(self, deliver: Callable[[Sequence[Change]], None]) -> Callable[[], None]:
        self._subscribers.append(deliver)
        return lambda: self._subscribers.remove(deliver)

    async def compact(self, revision: int) -> None:
        """Forget changes up to `revision`, in steps between which writes are served."""
        if revision > self._revision:
            raise Invalid(f"cannot compact to revision {revision}: the newest is {self._revision}")
        if revision <= self._compacted:
            return
        await self._call(lambda table: table.mark_compacted(revision))
        self._compacted = revision
        low: int | None = 0
        while low is not None:
            low = await self._call(partial(LogTable.sweep, low=low, count=_SWEEP_ROWS))

    async def close(self) -> None:
        """Finish what is queued, close the file, release the directory. Later calls raise Unavailable."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        await asyncio.shield(self._closed)

    async def _call(self, function: Callable[[LogTable], T]) -> T:
        result: T = await self._submit(_Call(function, self._loop.create_future()))
        return result

    async def _submit(self, job: _Commit | _Call) -> Any:
        if self.failed.done():
            raise Unavailable(self.failed.result())
        if self._closing:
            raise Unavailable("the store is closed")
        self._queue.put(job)
        return await job.done

    # On the event loop, called by the thread.

    def _post(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            # The loop is closed: nobody is left to be told. What was committed is on disk.
            if not self._loop.is_closed():
                raise

    def _ready(self, cluster_id: str, epoch: str, revision: int, compacted: int) -> None:
        self.cluster_id, self.epoch = cluster_id, epoch
        self._revision, self._compacted = revision, compacted
        _resolve(self._opened, None)

    def _deliver(self, group: Sequence[_Commit], outcomes: Sequence[Sequence[Change] | PodplaneError]) -> None:
        """Hand a committed group to the subscribers, in order, and only then to its writers."""
        changes = [change for outcome in outcomes if not isinstance(outcome, Exception) for change in outcome]
        if changes and not self.failed.done():
            self._revision = changes[-1].revision
            self._publish(changes)
        for commit, outcome in zip(group, outcomes, strict=True):
            _resolve(commit.done, Unavailable(self.failed.result()) if self.failed.done() else outcome)

    def _publish(self, changes: Sequence[Change]) -> None:
        try:
            for deliver in tuple(self._subscribers):
                deliver(changes)
        except Exception as error:
            # What is served from memory is no longer what is on disk: worse than being gone.
            logger.exception("a subscriber of the store failed at revision %d", self._revision)
            self._fail(f"the store failed: a subscriber could not take revision {self._revision}: {error!r}")

    def _fail(self, reason: str) -> None:
        _resolve(self.failed, reason)

    def _ended(self) -> None:
        _resolve(self._closed, None)

    # In the thread.

    def _run(self) -> None:
        try:
            lock, table = self._open()
        except Exception as error:
            self._post(_resolve, self._opened, error)
            return
        try:
            self._serve(table)
        finally:
            try:
                table.close()
            finally:
                lock.release()
                self._post(self._ended)

    def _open(self) -> tuple[DirectoryLock, LogTable]:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = DirectoryLock(self._directory)
        try:
            table = LogTable(self._directory / "store.sqlite")
        except BaseException:
            lock.release()
            raise
        self._post(self._ready, table.cluster_id, table.epoch, table.revision, table.compacted)
        return lock, table

    def _serve(self, table: LogTable) -> None:
        reason = ""
        while (job := self._queue.get()) is not None:
            group = self._take(job)
            if reason:  # failed for good: answer, until the daemon closes us
                self._refuse(group, reason)
            else:
                reason = self._attempt(table, group)
            if group[-1] is None:
                return

    def _attempt(self, table: LogTable, group: Sequence[_Commit | _Call | None]) -> str:
        """Perform a group; the reason where that ended the log."""
        try:
            self._perform(table, group)
        except Exception as error:
            logger.exception("the store failed")
            reason = f"the store failed: {error}"
            self._post(self._fail, reason)
            self._refuse(group, reason)
            return reason
        return ""

    def _take(self, first: _Commit | _Call) -> list[_Commit | _Call | None]:
        group: list[_Commit | _Call | None] = [first]
        try:
            while len(group) < _GROUP and group[-1] is not None:
                group.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        return group

    def _perform(self, table: LogTable, group: Sequence[_Commit | _Call | None]) -> None:
        """Commits first, as one; then the rest."""
        commits = [job for job in group if isinstance(job, _Commit)]
        if commits:
            self._commit(table, commits)
        for job in group:
            if isinstance(job, _Call):
                try:
                    self._post(_resolve, job.done, job.function(table))
                except PodplaneError as error:
                    self._post(_resolve, job.done, error)

    def _commit(self, table: LogTable, commits: Sequence[_Commit]) -> None:
        outcomes: Sequence[Sequence[Change] | PodplaneError]
        try:
            outcomes = table.commit([commit.transaction for commit in commits])
        except Unavailable as error:
            outcomes = [Unavailable(str(error)) for _ in commits]
        self._post(self._deliver, commits, outcomes)

    def _refuse(self, group: Sequence[_Commit | _Call | None], reason: str) -> None:
        for job in group:
            if job is not None:
                self._post(_resolve, job.done, Unavailable(reason))


def _resolve(future: asyncio.Future[Any], outcome: Any) -> None:
    """Give a future its result or exception; whoever waited may have been cancelled meanwhile."""
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
