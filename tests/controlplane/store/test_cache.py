"""The watch cache over a real store: lists, watches, and nothing lost in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message_factory import GetMessageClass

from controlplane.store.cache import Event, Stored, Subscription, WatchCache
from controlplane.store.log import Write
from controlplane.store.sqlite import SqliteLog
from podplane.errors import Expired
from podplane.kinds import KINDS, NODE, POD, Kind
from podplane.v1 import meta_pb2, pod_pb2


def pod(name: str, image: str = "a") -> bytes:
    made = pod_pb2.Pod(metadata=meta_pb2.ObjectMeta(name=name))
    made.spec.containers.add(name="main", image=image)
    return made.SerializeToString(deterministic=True)


async def put(log: SqliteLog, key: str, value: bytes | None = None, expected: int | None = None) -> int:
    (change,) = await log.commit([Write(key, pod(key) if value is None else value, expected)])
    return change.revision


async def delete(log: SqliteLog, key: str) -> int:
    (change,) = await log.commit([Write(key, None)])
    return change.revision


async def take(watch: Subscription, count: int) -> list[Event]:
    events: list[Event] = []
    async with asyncio.timeout(10):
        while len(events) < count:
            events.extend(await anext(watch))
    assert len(events) == count
    return events


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLog]:
    log = await SqliteLog.open(tmp_path / "store")
    yield log
    await log.close()


@pytest.fixture
async def cache(log: SqliteLog) -> AsyncIterator[WatchCache]:
    cache = await WatchCache.open(log, size=256)
    yield cache
    cache.close()


async def test_an_acknowledged_write_is_in_the_cache(log: SqliteLog, cache: WatchCache) -> None:
    revision = await put(log, "pods/a/x")
    stored = cache.get(POD, "a", "x")
    assert stored is not None
    assert (stored.revision, stored.created, cache.revision) == (revision, revision, revision)
    assert (stored.namespace, stored.name) == ("a", "x")
    assert stored.obj.metadata.resourceVersion == str(revision)
    assert stored.obj is stored.obj, "decoded once"
    await delete(log, "pods/a/x")
    assert cache.get(POD, "a", "x") is None


async def test_lists_are_in_key_order_by_kind_and_namespace(log: SqliteLog, cache: WatchCache) -> None:
    for key in ("pods/b/x", "pods/a/y", "nodes//n", "pods/a-b/x", "tokens/t", "pods/a/x", "pods/a/z"):
        await put(log, key)
    await delete(log, "pods/a/y")
    assert [stored.key for stored in cache.list(POD)] == ["pods/a-b/x", "pods/a/x", "pods/a/z", "pods/b/x"]
    assert [stored.name for stored in cache.list(POD, "a")] == ["x", "z"]
    assert [stored.name for stored in cache.list(NODE)] == ["n"]
    assert cache.list(POD, "none") == []


async def test_events_tell_what_happened(log: SqliteLog, cache: WatchCache) -> None:
    watch = cache.watch(POD)
    await put(log, "pods/a/x", pod("x", "one"))
    await put(log, "pods/a/x", pod("x", "two"))
    await delete(log, "pods/a/x")
    added, modified, deleted = await take(watch, 3)
    assert [event.type for event in (added, modified, deleted)] == ["ADDED", "MODIFIED", "DELETED"]
    assert [event.revision for event in (added, modified, deleted)] == [1, 2, 3]
    assert added.previous is None
    assert modified.previous is added.stored
    assert deleted.previous is modified.stored
    assert deleted.stored.obj.spec.containers[0].image == "two"
    assert deleted.stored.obj.metadata.resourceVersion == "3"


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_bytes_read_as_the_kind_and_its_watch_event(kind: Kind) -> None:
    body = kind.message(metadata={"name": "x" * 200, "labels": {"a": "b"}})
    stored = Stored(kind, kind.plural, 1234567, 1, body.SerializeToString())
    expected = kind.message(metadata={"name": "x" * 200, "labels": {"a": "b"}, "resourceVersion": "1234567"})
    assert kind.parse(stored.wire) == stored.obj == expected
    event = Event("MODIFIED", stored)
    descriptor: Any = kind.message.DESCRIPTOR.file.message_types_by_name[f"{kind.name}WatchEvent"]
    watch_event: Any = GetMessageClass(descriptor)
    assert watch_event.FromString(event.wire()) == watch_event(type="MODIFIED", object=expected)
    assert event.wire() is event.wire(), "encoded once"


def test_a_copy_at_another_revision_is_decoded_anew() -> None:
    stored = Stored(POD, "pods/a/x", 5, 5, pod("x"))
    assert stored.obj.metadata.resourceVersion == "5"
    assert replace(stored, revision=9).obj.metadata.resourceVersion == "9"


async def test_watchers_share_the_event(log: SqliteLog, cache: WatchCache) -> None:
    watches = [cache.watch(POD) for _ in range(100)]
    await put(log, "pods/a/x")
    events = [(await take(watch, 1))[0] for watch in watches]
    assert all(event is events[0] for event in events)


async def test_a_list_and_a_watch_after_it_have_no_hole_among_writers(log: SqliteLog, cache: WatchCache) -> None:
    async def writer(number: int) -> None:
        for round_ in range(10):
            key = f"pods/a/{number}-{round_ % 3}"
            if cache.get(POD, "a", key.rpartition("/")[2]) and round_ % 4 == 3:
                await delete(log, key)
            else:
                await put(log, key, pod(key, str(round_)))

    async def follower(start_at: int) -> None:
        while cache.revision < start_at:
            await asyncio.sleep(0)
        state = {stored.key: stored.revision for stored in cache.list(POD)}
        watch, last = cache.watch(POD), cache.revision
        async with asyncio.timeout(10):
            while last < 200:
                for event in await anext(watch):
                    assert event.revision == last + 1
                    last = event.revision
                    assert (event.type == "ADDED") == (event.stored.key not in state)
                    state[event.stored.key] = event.revision
                    if event.type == "DELETED":
                        del state[event.stored.key]
        assert state == {stored.key: stored.revision for stored in cache.list(POD)}

    followers = [asyncio.ensure_future(follower(start_at)) for start_at in (0, 1, 17, 60, 111, 190)]
    await asyncio.gather(*(writer(number) for number in range(20)), *followers)


async def test_a_watch_resumes_after_a_revision(log: SqliteLog, cache: WatchCache) -> None:
    for number in range(10):
        await put(log, f"{('pods/a', 'nodes/')[number % 2]}/{number}")
    events = await take(cache.watch(POD, after=4), 3)
    assert [event.revision for event in events] == [5, 7, 9]


async def test_batches_are_at_most_64(log: SqliteLog, cache: WatchCache) -> None:
    watch = cache.watch(POD)
    await asyncio.gather(*(put(log, f"pods/a/{number}") for number in range(150)))
    assert [len(await anext(watch)) for _ in range(3)] == [64, 64, 22]


async def test_a_namespace_watch_sees_only_its_own(log: SqliteLog, cache: WatchCache) -> None:
    watch = cache.watch(POD, namespace="a")
    reader = asyncio.ensure_future(take(watch, 1))
    for number in range(600):  # more than the ring holds: others' events do not outrun a watch that waits
        await put(log, f"pods/b/{number % 10}")
    await put(log, "pods/a/x")
    (event,) = await reader
    assert event.stored.key == "pods/a/x"


async def test_a_slow_watcher_ends_with_the_revision_it_had_and_the_others_go_on(
    log: SqliteLog, cache: WatchCache
) -> None:
    slow, quick = cache.watch(POD), cache.watch(POD)
    await put(log, "pods/a/first")
    assert (await take(slow, 1))[0].revision == 1
    for page in range(3):
        await asyncio.gather(*(put(log, f"pods/a/{number}") for number in range(100)))
        await take(quick, 101 if page == 0 else 100)
    with pytest.raises(Expired) as expired:
        await anext(slow)
    assert expired.value.oldest == slow.revision == 1
    with pytest.raises(StopAsyncIteration):
        await anext(slow)


async def test_a_revision_that_the_ring_has_lost_is_expired(log: SqliteLog, cache: WatchCache) -> None:
    for number in range(300):
        await put(log, f"pods/a/{number % 10}")
    with pytest.raises(Expired) as expired:
        cache.watch(POD, after=43)
    assert expired.value.oldest == 44
    assert (await anext(cache.watch(POD, after=44)))[0].revision == 45
    assert cache.watch(NODE, after=0).revision == 0, "another kind lost nothing"


async def test_a_revision_of_the_future_is_expired(log: SqliteLog, cache: WatchCache) -> None:
    await put(log, "pods/a/x")
    with pytest.raises(Expired, match="not of this store"):
        cache.watch(POD, after=2)


async def test_close_ends_a_waiting_watch(cache: WatchCache) -> None:
    watch = cache.watch(POD)

    async def read_all() -> list[list[Event]]:
        return [batch async for batch in watch]

    reader = asyncio.ensure_future(read_all())
    await asyncio.sleep(0)
    watch.close()
    watch.close()
    assert await asyncio.wait_for(reader, 5) == []


async def test_a_cancelled_reader_may_read_on(log: SqliteLog, cache: WatchCache) -> None:
    watch = cache.watch(POD)
    reader = asyncio.ensure_future(take(watch, 1))
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    await put(log, "pods/a/x")
    assert [event.revision for event in await take(watch, 1)] == [1]


async def test_watches_go_on_while_history_is_compacted(log: SqliteLog, cache: WatchCache) -> None:
    watch = cache.watch(POD)
    for number in range(50):
        await put(log, f"pods/a/{number % 5}")
    first = await take(watch, 50)
    await log.compact(40)
    await put(log, "pods/a/x")
    assert [event.revision for event in [*first, *await take(watch, 1)]] == list(range(1, 52))


async def test_a_watch_resumes_across_a_restart_back_to_the_compacted_revision(log: SqliteLog) -> None:
    for number in range(20):
        await put(log, f"pods/a/{number % 4}", pod("x", str(number)))
    await delete(log, "pods/a/0")
    await log.compact(10)
    cache = await WatchCache.open(log, size=256)
    with pytest.raises(Expired):
        cache.watch(POD, after=9)
    events = await take(cache.watch(POD, after=10), 11)
    assert [event.revision for event in events] == list(range(11, 22))
    assert [event.type for event in events] == ["MODIFIED"] * 10 + ["DELETED"]
    for event in events:
        assert event.previous is not None
        assert event.previous.obj.spec.containers[0].image == (str(event.revision - 5) if event.revision < 21 else "16")
    cache.close()


async def test_an_open_among_writers_misses_nothing(log: SqliteLog) -> None:
    writers = [asyncio.ensure_future(put(log, f"pods/a/{number}")) for number in range(200)]
    cache = await WatchCache.open(log)
    await asyncio.gather(*writers)
    assert [stored.revision for stored in sorted(cache.list(POD), key=lambda one: one.revision)] == list(range(1, 201))
    assert [event.revision for event in await take(cache.watch(POD, after=0), 200)] == list(range(1, 201))
    cache.close()
