"""The journal: whatever is torn off its end or flipped in it, what was before is used and the rest is set aside."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nodeagent import syscalls
from nodeagent.pods import codec
from nodeagent.pods import journal as journals
from nodeagent.pods.codec import decode
from nodeagent.pods.events import DeletionRequested
from nodeagent.pods.journal import Journal, JournalFile, NotDurable, frame, frames
from nodeagent.pods.state import CREATED, RUNNING, PodState
from tests.nodeagent.pods.world import World, make_pod


def opened(directory: Path, boot: str = "boot-1") -> Journal:
    return Journal(directory / "boot.log", directory / "durable.log", boot)


def encode(state: PodState) -> dict[str, Any]:
    """As JSON gives it back: lists for tuples."""
    found: dict[str, Any] = json.loads(json.dumps(codec.encode(state)))
    return found


def running() -> World:
    world = World(make_pod(init=1))
    world.run()
    world.exit("i0", 0)
    world.settle()
    return world


def test_a_state_survives_encoding_and_decoding() -> None:
    world = running()
    world.exit("a0", 3)
    again = decode(encode(world.state), world.state.pod)
    assert encode(again) == encode(world.state)
    assert again.container("a0").ended == world.state.container("a0").ended


async def test_what_is_recorded_is_found_by_the_next_agent(tmp_path: Path) -> None:
    world, first = running(), opened(tmp_path)
    await first.record(world.state)
    first.close()
    second = opened(tmp_path)
    assert not second.rebooted
    assert second.found() == {"uid-1": encode(world.state)}
    second.forget("uid-1")
    second.close()
    third = opened(tmp_path)
    assert third.found() == {}
    third.close()


async def test_a_journal_torn_at_any_byte_gives_every_record_before_the_tear(tmp_path: Path) -> None:
    whole = b"".join(frame({"uid": str(n), "state": {"n": n}}) for n in range(4))
    ends = [0, *(end for end, _ in frames(whole))]
    path = tmp_path / "boot.log"
    for cut in range(len(whole) + 1):
        path.write_bytes(frame({"boot": "b", "version": 1}) + whole[:cut])
        file = JournalFile(path, "b", outlives_boot=False)
        assert len(file.records) == sum(1 for end in ends[1:] if end <= cut)
        torn = cut not in ends
        assert path.with_name("boot.log.torn").exists() == torn
        path.with_name("boot.log.torn").unlink(missing_ok=True)
        file.append("after", {"n": 9})
        file.close()
        again = JournalFile(path, "b", outlives_boot=False)
        assert again.records["after"] == {"n": 9}
        again.close()


def test_zeros_that_a_power_cut_left_are_a_torn_tail(tmp_path: Path) -> None:
    path = tmp_path / "durable.log"
    whole = frame({"boot": "b", "version": 1}) + frame({"uid": "a", "state": {"n": 1}})
    path.write_bytes(whole + bytes(100))
    file = JournalFile(path, "b", outlives_boot=True)
    assert (file.records, path.stat().st_size) == ({"a": {"n": 1}}, len(whole))
    file.close()


def test_a_flipped_bit_anywhere_is_noticed(tmp_path: Path) -> None:
    whole = frame({"uid": "a", "state": {"n": 1}}) + frame({"uid": "b", "state": {"n": 2}})
    for index in range(len(whole)):
        damaged = bytearray(whole)
        damaged[index] ^= 0x40
        found = [record for _, record in frames(bytes(damaged))]
        assert all(record in ({"uid": "a", "state": {"n": 1}}, {"uid": "b", "state": {"n": 2}}) for record in found)
        assert len(found) < 2


async def test_after_a_reboot_only_what_is_durable_holds(tmp_path: Path) -> None:
    world, first = running(), opened(tmp_path)
    await first.record(world.state)
    kept = encode(world.state)
    world.post(DeletionRequested(world.now, 30))
    world.state.deleted = False  # a step that touches nothing durable
    await first.record(world.state)
    first.close()
    second = opened(tmp_path, "boot-2")
    assert second.rebooted
    assert second.found() == {"uid-1": kept}
    second.close()
    third = opened(tmp_path, "boot-2")
    assert third.rebooted is False
    third.close()


async def test_what_began_is_known_after_a_boot(tmp_path: Path) -> None:
    """Or a container would begin again under the name that it had, and one that is never restarted would run twice."""
    world, first = running(), opened(tmp_path)
    app = world.state.container("a0")
    app.stage = CREATED
    await first.record(world.state)
    app.stage = RUNNING
    await first.record(world.state)
    first.close()
    second = opened(tmp_path, "boot-2")
    assert decode(second.found()["uid-1"], world.state.pod).container("a0").stage == RUNNING
    second.close()


async def test_where_this_boots_newest_record_is_torn_off_the_durable_one_holds(tmp_path: Path) -> None:
    world, first = running(), opened(tmp_path)
    await first.record(world.state)
    world.exit("a0", 3)
    world.settle()
    await first.record(world.state)
    first.close()
    boot = tmp_path / "boot.log"
    *_, (end, _), _last = frames(boot.read_bytes())
    boot.write_bytes(boot.read_bytes()[: end + 40])
    second = opened(tmp_path)
    assert second.found() == {"uid-1": encode(world.state)}
    # And what comes after is newer than both, for the third as well.
    world.pass_time(400)
    await second.record(world.state)
    second.close()
    third = opened(tmp_path)
    assert third.found() == {"uid-1": encode(world.state)}
    third.close()


async def test_compaction_keeps_the_newest_record_of_each_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "_COMPACT_AT", 2000)
    file = JournalFile(tmp_path / "x.log", "b", outlives_boot=True)
    for n in range(200):
        file.append(f"uid-{n % 3}", {"n": n})
    file.close()
    assert (tmp_path / "x.log").stat().st_size < 3000
    again = JournalFile(tmp_path / "x.log", "b", outlives_boot=True)
    assert again.records == {"uid-0": {"n": 198}, "uid-1": {"n": 199}, "uid-2": {"n": 197}}
    again.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 64 KiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    syscalls.mount("tmpfs", directory, "tmpfs", 0, "size=64k")
    yield directory
    syscalls.umount2(directory, syscalls.MNT_DETACH)


async def test_a_full_disk_is_told_leaves_nothing_half_written_and_is_got_over(
    tmp_path: Path, small_disk: Path
) -> None:
    world, ballast = running(), small_disk / "ballast"
    journal = Journal(tmp_path / "boot.log", small_disk / "durable.log", "boot-1")
    await journal.record(world.state)
    before = encode(world.state)
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    size = (small_disk / "durable.log").stat().st_size
    failed = None
    for code in range(1, 1000):  # what is left of the file's last page takes some records
        world.exit("a0", code)
        world.settle()
        world.pass_time(400)
        try:
            await journal.record(world.state)
        except NotDurable as error:
            failed = error
            break
        before, size = encode(world.state), (small_disk / "durable.log").stat().st_size
    assert failed is not None
    assert failed.errno == errno.ENOSPC
    assert (small_disk / "durable.log").stat().st_size == size
    *_, (end, last) = frames((small_disk / "durable.log").read_bytes())
    assert (end, last["state"]) == (size, before)
    ballast.unlink()
    await journal.record(world.state)
    journal.close()
    again = JournalFile(small_disk / "durable.log", "boot-1", outlives_boot=True)
    assert again.records == {"uid-1": encode(world.state)}
    again.close()


async def test_a_full_disk_does_not_keep_a_journal_from_being_opened(tmp_path: Path, small_disk: Path) -> None:
    first = Journal(tmp_path / "boot.log", small_disk / "durable.log", "boot-1")
    world = running()
    await first.record(world.state)
    first.close()
    durable = small_disk / "durable.log"
    whole = durable.read_bytes()
    durable.write_bytes(whole + b"torn")
    with contextlib.suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    second = Journal(tmp_path / "boot.log", durable, "boot-2")
    assert second.rebooted
    assert second.found() == {"uid-1": encode(world.state)}
    second.close()


async def test_records_of_many_pods_share_their_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, syncs = opened(tmp_path), 0
    real = JournalFile.sync

    def counted(file: JournalFile) -> None:
        nonlocal syncs
        syncs += 1
        real(file)

    monkeypatch.setattr(JournalFile, "sync", counted)
    worlds = []
    for n in range(50):
        pod = make_pod()
        pod.metadata.uid = f"uid-{n}"
        world = World(pod)
        world.run()
        worlds.append(world)
    await asyncio.gather(*(journal.record(world.state) for world in worlds))
    journal.close()
    assert 1 <= syncs <= 3
    again = opened(tmp_path)
    assert len(again.found()) == 50
    again.close()
