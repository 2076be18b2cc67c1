"""What the agent writes down before it acts (D11): the newest state of every pod, in two append-only files.

The boot journal (tmpfs) has every step and ends with the boot: a plain write, which survives SIGKILL. The durable
journal has what must survive power loss, and is synced in groups. A record (records.py) is JSON; the first one says of
which boot a file is.

Never: decides anything, or reads a spec. A torn or corrupt tail is noticed by its checksum, set aside beside the file
with the suffix .torn and reported; what was before it is used. An I/O error (disk full) is raised: the effect that
was to follow then waits.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nodeagent import records
from nodeagent.pods import failpoints
from nodeagent.pods.codec import Instances, begun, durable, encode
from nodeagent.pods.state import PodState
from podplane.files import sync, write_all

log = logging.getLogger(__name__)

Record = dict[str, Any]

_JSON = json.JSONEncoder(separators=(",", ":"))
_COMPACT_AT = 4 * 1024 * 1024
VERSION = 1


def frame(record: Record) -> bytes:
    """One record as it stands in the file."""
    return records.record(_JSON.encode(record).encode())


def frames(data: bytes) -> Iterator[tuple[int, Record]]:
    """(offset after it, record) of every whole record, up to the first that is torn or corrupt."""
    return ((end, json.loads(payload)) for end, payload in records.records(data))


def _record(uid: str, state: Record | None, number: int) -> bytes:
    return frame({"uid": uid, "state": state, "number": number})


class NotDurable(OSError):
    """The state is written down for this boot, but not for what comes after a power loss."""


class JournalFile:
    """One file: an append, a compaction, what it held when it was opened.

    `records`: uid -> newest record; `numbers`: the order in which they were written, over both files.
    """

    def __init__(self, path: Path, boot: str, *, outlives_boot: bool) -> None:
        self.path = path
        self.boot = boot
        self._outlives_boot = outlives_boot
        self.previous_boot = ""
        self.records: dict[str, Record] = {}
        self.numbers: dict[str, int] = {}
        self._size = 0
        self._compact_at = _COMPACT_AT
        is_new = not path.exists()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if is_new:
            sync(path.parent)
        self._load()

    def _load(self) -> None:
        data = self.path.read_bytes()
        good = 0
        for end, record in frames(data):
            good = end
            if "boot" in record:
                self.previous_boot = record["boot"]
            else:
                self._take(record["uid"], record["state"], record.get("number", 0))
        if good < len(data):
            self._set_aside(data[good:], good)
        self._size = good
        if self.previous_boot != self.boot:
            if not self._outlives_boot:  # the directory is no tmpfs: what it holds ended with the last boot
                os.ftruncate(self._file, 0)
                self._size = 0
                self.records.clear()
                self.numbers.clear()
            self._begin_boot()

    def _take(self, uid: str, state: Record | None, number: int) -> None:
        if state is None:
            self.records.pop(uid, None)
            self.numbers.pop(uid, None)
        else:
            self.records[uid], self.numbers[uid] = state, number

    def _begin_boot(self) -> None:
        try:
            self._write(frame({"boot": self.boot, "version": VERSION}))
        except OSError as error:
            if not self._outlives_boot:
                raise
            # A full disk: that there was a reboot is known by the other file, which is in memory.
            log.warning("cannot write to journal %s: %s", self.path, error)

    def _set_aside(self, tail: bytes, good: int) -> None:
        aside = self.path.with_name(self.path.name + ".torn")
        try:
            aside.write_bytes(tail)
            aside.chmod(0o600)
            log.warning("journal %s is torn: %d bytes set aside in %s", self.path, len(tail), aside)
        except OSError as error:
            log.warning("journal %s is torn: %d bytes are lost: cannot set them aside: %s", self.path, len(tail), error)
        os.ftruncate(self._file, good)

    def append(self, uid: str, state: Record | None, number: int = 0) -> None:
        """Write the newest state of a pod; None forgets it."""
        self._take(uid, state, number)
        self._write(_record(uid, state, number))
        if self._size > self._compact_at:
            self._try_to_compact()

    def _write(self, data: bytes) -> None:
        try:
            write_all(self._file, data)
        except OSError:
            os.ftruncate(self._file, self._size)  # a half record must not hide the later ones
            raise
        self._size += len(data)

    def sync(self) -> None:
        """Everything appended so far is on the disk when this returns."""
        os.fdatasync(self._file)

    def _try_to_compact(self) -> None:
        """The record is written: that the file cannot be made smaller now (a full disk) is no failure of it."""
        try:
            self.compact()
            self._compact_at = _COMPACT_AT
        except OSError as error:
            log.warning("cannot compact journal %s: %s", self.path, error)
            self._temporary.unlink(missing_ok=True)
            self._compact_at = self._size + _COMPACT_AT

    @property
    def _temporary(self) -> Path:
        return self.path.with_name(f".{self.path.name}.new")

    def compact(self) -> None:
        """Replace the file by one with the newest record of each pod. Raises OSError."""
        temporary = self._temporary
        content = frame({"boot": self.boot, "version": VERSION}) + b"".join(
            _record(uid, state, self.numbers[uid]) for uid, state in self.records.items()
        )
        with open(temporary, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)
        sync(self.path.parent)
        self._reopen()
        self._size = len(content)

    def _reopen(self) -> None:
        """Take the new file under the old number: a sync that runs in a thread never meets a closed one."""
        opened = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        os.dup2(opened, self._file, inheritable=False)
        os.close(opened)

    def close(self) -> None:
        os.close(self._file)


class Journal:
    """Both files. `record` before every effect; `forget` when nothing of the pod is left."""

    def __init__(self, boot_path: Path, durable_path: Path, boot_id: str) -> None:
        self._boot = JournalFile(boot_path, boot_id, outlives_boot=False)
        self._durable = JournalFile(durable_path, boot_id, outlives_boot=True)
        self.rebooted = self._boot.previous_boot not in ("", boot_id) or (
            not self._boot.previous_boot and self._durable.previous_boot not in ("", boot_id)
        )
        self._kept: dict[str, tuple[Any, ...]] = {}
        self._begun: dict[str, Instances] = {}
        self._before: Callable[[], None] = lambda: None
        self._later: set[asyncio.Task[None]] = set()
        self._noting: dict[str, asyncio.Task[None]] = {}
        self._number = max((*self._boot.numbers.values(), *self._durable.numbers.values()), default=0)
        self._syncing: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    def sync_first(self, before: Callable[[], None]) -> None:
        """Call `before` in a thread ahead of each sync: what a record relies on goes to the disk first."""
        self._before = before

    def found(self) -> dict[str, Record]:
        """uid -> the newest record that still holds: of this boot, or the durable one where this boot's is torn off."""
        records, numbers = dict(self._durable.records), self._durable.numbers
        if not self.rebooted:
            for uid, record in self._boot.records.items():
                if self._boot.numbers[uid] >= numbers.get(uid, 0):
                    records[uid] = record
        return records

    async def record(self, state: PodState) -> None:
        """Write the state down; where something of it must survive power loss, it is on the disk on return.

        Raises NotDurable where only that failed (the state is safe until power is lost), else OSError; done again, it
        writes all of it again, so that what a failed sync dropped is not missed.
        """
        failpoints.hit("journal:before")
        record = encode(state)
        self._number += 1
        self._boot.append(state.uid, record, self._number)
        kept = durable(state)
        running = begun(state)
        if self._kept.get(state.uid) != kept:
            await self._keep(state.uid, record, self._number)
            self._kept[state.uid], self._begun[state.uid] = kept, running
        elif self._begun.get(state.uid, ()) != running:
            self._note(state.uid, record, running)
        failpoints.hit("journal:after")

    def noting(self, uid: str) -> asyncio.Task[None] | None:
        """What is on its way to the disk of the pod, or None. Nobody may be told before: it might happen twice.

        Awaiting it never fails, where it is shielded from a cancellation: what cannot be written has been logged.
        """
        return self._noting.get(uid)

    async def _keep(self, uid: str, record: Record, number: int) -> None:
        try:
            self._durable.append(uid, record, number)
            await self._sync()
        except OSError as error:
            raise NotDurable(error.errno, f"cannot write to journal {self._durable.path}: {error.strerror}") from error

    def _note(self, uid: str, record: Record, running: Instances) -> None:
        """Write down what runs; on the disk it is a millisecond or so later (`noting`), and the next step may begin."""
        try:
            self._durable.append(uid, record, self._number)
        except OSError as error:  # the next record tries again
            log.warning("cannot write to journal %s: %s: after a boot pod %s would be taken for one that has not begun",
                        self._durable.path, error.strerror, uid)  # fmt: skip
            return
        self._begun[uid] = running
        self._noting[uid] = task = asyncio.create_task(self._sync_soon(uid), name="journal-begun")
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _sync_soon(self, uid: str) -> None:
        try:
            await self._sync()
        except OSError as error:
            self._begun.pop(uid, None)
            log.warning("cannot sync journal %s: %s", self._durable.path, error.strerror)
        finally:
            if self._noting.get(uid) is asyncio.current_task():  # a later one may have come in its place
                del self._noting[uid]

    def forget(self, uid: str) -> None:
        """Nothing of the pod is left. Not synced, and no failure where it cannot be written: a record without a spec
        is cleared away by the next agent, and forgetting twice does no harm."""
        self._kept.pop(uid, None)
        self._begun.pop(uid, None)
        for file in (self._boot, self._durable):
            if uid not in file.records:
                continue
            try:
                file.append(uid, None)
            except OSError as error:
                log.warning("cannot write to journal %s that pod %s is gone: %s", file.path, uid, error)

    async def _sync(self) -> None:
        """Group commit: who comes while a sync runs waits for the next one, together with all others."""
        if self._next is None:
            self._next = asyncio.create_task(self._sync_after(self._syncing), name="journal-sync")
        await asyncio.shield(self._next)

    async def _sync_after(self, running: asyncio.Task[None] | None) -> None:
        if running is not None:
            await asyncio.wait([running])
        self._syncing, self._next = self._next, None
        await asyncio.to_thread(self._sync_both)

    def _sync_both(self) -> None:
        self._before()
        self._durable.sync()

    def close(self) -> None:
        for task in self._later:
            task.cancel()  # what they wait for is written; only its way to the disk is the kernel's now
        self._boot.close()
        self._durable.close()
