"""The embedded driver under what can happen to it: SIGKILL, a torn file, a failing or full disk, a second process."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from controlplane.store.log import Change, Write
from controlplane.store.sqlite import SqliteLog
from controlplane.store.table import LogTable
from podplane.errors import Unavailable
from tests.controlplane.store.killed_writer import PARTS

Acknowledged = dict[str, int]
"""`run/writer/number` → first revision."""


def start_writer(directory: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.controlplane.store.killed_writer", str(directory), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def acknowledged(run: str, output: bytes) -> Acknowledged:
    """What the complete lines say; a torn last line was not acknowledged to anybody."""
    lines = output.decode().split("\n")[:-1]
    return {f"{run}/{writer}/{number}": int(revision) for writer, number, revision in map(str.split, lines)}


async def check_whole(directory: Path, promised: Acknowledged) -> None:
    """Every acknowledged transaction is there at its revision, and every one that is there is there wholly."""
    log = await SqliteLog.open(directory)
    try:
        records, revision = await log.load()
        history = await log.changes(0, limit=1_000_000)
    finally:
        await log.close()
    found: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for record in records:
        name, _, part = record.key.rpartition("/")
        found[name].append((part, record.revision))
        assert record.value == name.encode() * 100
    assert promised.keys() <= found.keys()
    for name, parts in found.items():
        first = promised.get(name, parts[0][1])
        assert parts == [(part, first + offset) for offset, part in enumerate(PARTS)]
    assert [change.revision for change in history] == list(range(1, revision + 1))


async def test_sigkill_keeps_what_was_acknowledged_and_no_half_transaction(tmp_path: Path) -> None:
    chance, promised = random.Random(7), Acknowledged()
    for run in ("one", "two", "three", "four"):
        writer = start_writer(tmp_path, run)
        assert writer.stdout is not None
        output = b""
        while output.count(b"\n") < chance.randint(50, 600):
            output += os.read(writer.stdout.fileno(), 4096)
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate(timeout=10)
        promised |= acknowledged(run, output + rest)
        await check_whole(tmp_path, promised)
    assert len(promised) > 100


async def test_a_torn_group_is_not_there_at_all(tmp_path: Path) -> None:
    log = await SqliteLog.open(tmp_path / "store")
    groups = []
    for group in range(5):
        jobs = [
            log.commit(
                [Write(f"run/{group}/{number}/{part}", f"run/{group}/{number}".encode() * 100) for part in PARTS]
            )
            for number in range(5)
        ]
        groups.append(await asyncio.gather(*jobs))
    # The files as a power cut would leave them: the newest part of the WAL did not reach the disk.
    for name in ("store.sqlite", "store.sqlite-wal"):
        shutil.copy(tmp_path / "store" / name, tmp_path / name)
    await log.close()
    wal = (tmp_path / "store.sqlite-wal").read_bytes()
    counts = set()
    for number, size in enumerate(range(len(wal), 4096 * 4, -3001)):
        torn = tmp_path / f"torn-{number}"
        torn.mkdir()
        shutil.copy(tmp_path / "store.sqlite", torn)
        (torn / "store.sqlite-wal").write_bytes(wal[:size])
        await check_whole(torn, {})
        counts.add(await count(torn))
    assert len(counts) > 2, "the cuts fell between groups and into them"


async def count(directory: Path) -> int:
    log = await SqliteLog.open(directory)
    records, _ = await log.load()
    await log.close()
    return len(records)


async def test_a_second_process_is_refused_by_name(tmp_path: Path) -> None:
    log = await SqliteLog.open(tmp_path)
    second = start_writer(tmp_path, "second")
    _, errors = second.communicate(timeout=30)
    assert second.returncode == 1
    assert f"cannot open the store in {tmp_path}: process {os.getpid()} is using it" in errors.decode()
    await log.close()
    log = await SqliteLog.open(tmp_path)
    assert log.revision == 0
    await log.close()


async def test_an_error_of_the_disk_ends_the_log_for_good(tmp_path: Path) -> None:
    writer = start_writer(tmp_path, "run", str(256 * 1024))
    output, errors = await asyncio.to_thread(writer.communicate, timeout=30)
    assert writer.returncode == 3, errors.decode()
    assert "the store failed: disk I/O error" in errors.decode()
    promised = acknowledged("run", output)
    assert promised
    await check_whole(tmp_path, promised)


def test_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    table = LogTable(tmp_path / "store.sqlite")
    # SQLite's own bound on the file gives the same answer as a disk without space, and nobody else is harmed.
    table._db.execute("PRAGMA max_page_count=64")
    fitting = fill(table)
    assert 0 < fitting < 100
    assert table.revision == fitting * 2
    table._db.execute("PRAGMA max_page_count=10000")
    revision = table.revision + 1
    assert table.commit([[Write("after", b"v")]]) == [[Change("after", revision, revision, b"v", None)]]
    table.close()


def fill(table: LogTable) -> int:
    """Groups of two that fit."""
    for number in range(100):
        try:
            table.commit([[Write(f"k{number}", b"x" * 4096)], [Write(f"l{number}", b"x" * 4096)]])
        except Unavailable:
            return number
    return 100


async def test_a_subscriber_that_fails_ends_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = await SqliteLog.open(tmp_path)

    def refuse(_: object) -> None:
        raise ValueError("cannot take it")

    log.subscribe(refuse)
    with pytest.raises(Unavailable, match="cannot take it"):
        await log.commit([Write("k", b"v")])
    assert "cannot take it" in await asyncio.wait_for(log.failed, 5)
    with pytest.raises(Unavailable):
        await log.commit([Write("k", b"v")])
    await log.close()


async def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "store"
    log = await SqliteLog.open(directory)
    await log.commit([Write("secrets/default/key", b"v")])
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    await log.close()


async def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    table = LogTable(tmp_path / "store.sqlite")
    table._db.execute("PRAGMA user_version=2")
    table.close()
    with pytest.raises(Unavailable, match="newer"):
        await SqliteLog.open(tmp_path)
