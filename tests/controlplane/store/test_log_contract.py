"""What every driver of the log does (controlplane/store/log.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from controlplane.store.log import Change, Log, Write
from podplane.errors import Conflict, Expired, Invalid, Unavailable
from tests.controlplane.store.conftest import OpenLog


async def values(log: Log, prefix: str = "") -> dict[str, bytes]:
    records, _ = await log.load(prefix)
    return {record.key: record.value for record in records}


async def test_revisions_rise_by_one_with_each_write(log: Log) -> None:
    first = await log.commit([Write("pods/a/x", b"1")])
    second = await log.commit([Write("pods/a/y", b"2"), Write("pods/a/z", b"3")])
    assert [change.revision for change in (*first, *second)] == [1, 2, 3]
    assert log.revision == 3


async def test_a_change_carries_creation_and_previous_value(log: Log) -> None:
    await log.commit([Write("k", b"old", 0)])
    (updated,) = await log.commit([Write("k", b"new", 1)])
    (deleted,) = await log.commit([Write("k", None, 2)])
    (again,) = await log.commit([Write("k", b"again", 0)])
    assert updated == Change("k", 2, 1, b"new", b"old")
    assert deleted == Change("k", 3, 1, None, b"new")
    assert again == Change("k", 4, 4, b"again", None)


@pytest.mark.parametrize(
    "refused",
    [Write("k", b"x", 0), Write("k", b"x", 2), Write("k", None, 7), Write("absent", b"x", 1), Write("absent", None)],
)
async def test_a_failed_precondition_is_a_conflict_that_names_the_key(log: Log, refused: Write) -> None:
    await log.commit([Write("k", b"v", 0)])
    with pytest.raises(Conflict, match=refused.key):
        await log.commit([refused])
    assert (await values(log), log.revision) == ({"k": b"v"}, 1)


async def test_without_expected_a_write_has_no_precondition(log: Log) -> None:
    await log.commit([Write("k", b"1")])
    await log.commit([Write("k", b"2")])
    await log.commit([Write("k", None)])
    assert await values(log) == {}


async def test_a_transaction_with_one_failing_write_leaves_nothing(log: Log) -> None:
    await log.commit([Write("taken", b"v", 0)])
    with pytest.raises(Conflict, match="taken"):
        await log.commit([Write("a", b"1", 0), Write("b", b"2", 0), Write("taken", b"x", 0)])
    (after,) = await log.commit([Write("c", b"3", 0)])
    assert after.revision == 2
    assert await values(log) == {"taken": b"v", "c": b"3"}


async def test_a_later_write_of_a_transaction_sees_the_earlier_ones(log: Log) -> None:
    changes = await log.commit([Write("k", b"1", 0), Write("k", b"2", 1), Write("k", None, 2)])
    assert [(change.revision, change.created, change.previous) for change in changes] == [
        (1, 1, None),
        (2, 1, b"1"),
        (3, 1, b"2"),
    ]


async def test_an_empty_transaction_is_refused(log: Log) -> None:
    with pytest.raises(Invalid):
        await log.commit([])


async def test_one_of_many_racing_creators_wins(log: Log) -> None:
    racing = (log.commit([Write("k", b"%d" % number, 0), Write(f"own/{number}", b"", 0)]) for number in range(50))
    outcomes = await asyncio.gather(*racing, return_exceptions=True)
    won = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert len(won) == 1
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 49
    assert set(await values(log)) == {change.key for change in won[0]}


async def test_no_increment_is_lost_among_racing_writers(log: Log) -> None:
    await log.commit([Write("counter", b"0", 0)])

    async def increment() -> None:
        while True:
            ((record,), _) = await log.load("counter")
            try:
                await log.commit([Write("counter", b"%d" % (int(record.value) + 1), record.revision)])
            except Conflict:
                continue
            return

    await asyncio.gather(*(increment() for _ in range(20)))
    assert await values(log) == {"counter": b"20"}


async def test_load_gives_a_prefix_in_key_order_with_its_revision(log: Log) -> None:
    for key in ("pods/b/x", "pods/a/y", "nodes//n", "pods/a-b/x", "pods/a/x"):
        await log.commit([Write(key, key.encode())])
    records, revision = await log.load("pods/")
    assert [record.key for record in records] == ["pods/a-b/x", "pods/a/x", "pods/a/y", "pods/b/x"]
    assert [(record.revision, record.created) for record in records] == [(4, 4), (5, 5), (2, 2), (1, 1)]
    assert revision == 5


async def test_changes_come_in_order_and_in_pages(log: Log) -> None:
    done: list[Change] = []
    for number in range(10):
        done.extend(await log.commit([Write(f"k{number % 3}", b"%d" % number)]))
    done.extend(await log.commit([Write("k0", None)]))
    assert await log.changes(0) == done
    assert await log.changes(4, limit=3) == done[4:7]
    assert await log.changes(11) == []


async def test_subscribers_get_every_change_in_order_before_its_commit_returns(log: Log) -> None:
    seen: list[int] = []
    stop = log.subscribe(lambda changes: seen.extend(change.revision for change in changes))

    async def writer(number: int) -> None:
        for _ in range(10):
            changes = await log.commit([Write(f"w{number}", b""), Write("all", b"")])
            assert changes[-1].revision in seen
            assert log.revision >= changes[-1].revision

    await asyncio.gather(*(writer(number) for number in range(20)))
    assert seen == list(range(1, 401))
    stop()
    await log.commit([Write("late", b"")])
    assert len(seen) == 400


async def test_subscribers_are_called_in_the_order_of_subscription(log: Log) -> None:
    calls: list[str] = []
    for name in ("first", "second"):

        def deliver(_: Sequence[Change], name: str = name) -> None:
            calls.append(name)

        log.subscribe(deliver)
    await log.commit([Write("k", b"")])
    assert calls == ["first", "second"]


async def test_a_writer_that_gave_up_does_not_disturb_the_others(log: Log) -> None:
    waiting = [asyncio.ensure_future(log.commit([Write(f"k{number}", b"", 0)])) for number in range(10)]
    await asyncio.sleep(0)
    waiting[3].cancel()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [number for number, outcome in enumerate(outcomes) if isinstance(outcome, BaseException)] == [3]


async def test_a_reopened_log_goes_on_where_it_was(open_log: OpenLog) -> None:
    log = await open_log()
    await log.commit([Write("k", b"v", 0), Write("gone", b"v", 0)])
    await log.commit([Write("gone", None, 2)])
    identity, history = (log.cluster_id, log.epoch), await log.changes(0)
    assert all(identity)
    await log.close()
    log = await open_log()
    assert ((log.cluster_id, log.epoch), log.revision) == (identity, 3)
    assert await log.changes(0) == history
    (change,) = await log.commit([Write("k", b"w", 1)])
    assert change == Change("k", 4, 1, b"w", b"v")


async def test_a_closed_log_refuses(open_log: OpenLog) -> None:
    log = await open_log()
    last = asyncio.ensure_future(log.commit([Write("k", b"v")]))
    await asyncio.sleep(0)
    await log.close()
    assert (await last)[0].revision == 1, "what was queued is finished"
    with pytest.raises(Unavailable):
        await log.commit([Write("k", b"w")])
    await log.close()


async def test_compaction_forgets_history_and_keeps_state(log: Log) -> None:
    for number in range(5):
        await log.commit([Write("k", b"%d" % number), Write(f"gone{number}", b"x")])
        await log.commit([Write(f"gone{number}", None)])
    state = await log.load()
    await log.compact(10)
    assert log.compacted == 10
    assert await log.load() == state
    with pytest.raises(Expired) as expired:
        await log.changes(9)
    assert expired.value.oldest == 10
    assert [change.revision for change in await log.changes(10)] == [11, 12, 13, 14, 15]


async def test_a_change_after_the_compacted_revision_keeps_its_previous_value(log: Log) -> None:
    await log.commit([Write("k", b"1")])
    await log.commit([Write("k", b"2")])
    await log.commit([Write("k", b"3")])
    await log.compact(2)
    assert await log.changes(2) == [Change("k", 3, 1, b"3", b"2")]


async def test_revisions_do_not_fall_where_compaction_took_the_newest_row(open_log: OpenLog) -> None:
    log = await open_log()
    await log.commit([Write("k", b"v")])
    await log.commit([Write("k", None)])
    await log.compact(2)
    await log.close()
    log = await open_log()
    assert (log.revision, log.compacted) == (2, 2)
    (change,) = await log.commit([Write("k", b"again", 0)])
    assert change == Change("k", 3, 3, b"again", None)


async def test_compacting_less_than_before_changes_nothing_and_beyond_the_newest_is_refused(log: Log) -> None:
    await log.commit([Write("a", b""), Write("b", b"")])
    await log.compact(2)
    await log.compact(1)
    assert log.compacted == 2
    with pytest.raises(Invalid):
        await log.compact(3)


async def test_writes_go_on_while_a_long_history_is_compacted(log: Log) -> None:
    await asyncio.gather(*(log.commit([Write(f"k{number % 7}", b"%d" % number)]) for number in range(5000)))
    compaction = asyncio.ensure_future(log.compact(5000))
    during = 0
    while not compaction.done():
        await log.commit([Write("other", b"%d" % during)])
        during += 1
    await compaction
    assert during > 1
    assert set(await values(log)) == {*(f"k{number}" for number in range(7)), "other"}
