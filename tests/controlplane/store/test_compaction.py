"""Regular compaction over a real store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from controlplane.store import compaction
from controlplane.store.log import Write
from controlplane.store.sqlite import SqliteLog


async def test_history_of_one_interval_ago_is_forgotten(tmp_path: Path) -> None:
    log = await SqliteLog.open(tmp_path)
    for number in range(5):
        await log.commit([Write("k", b"%d" % number)])
    task = asyncio.ensure_future(compaction.run(log, interval=0.001))
    async with asyncio.timeout(10):
        while log.compacted < 5:
            await asyncio.sleep(0)
    task.cancel()
    assert [record.value for record in (await log.load())[0]] == [b"4"]
    await asyncio.wait([task])
    await log.close()


async def test_a_store_that_cannot_compact_now_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = await SqliteLog.open(tmp_path)
    await log.commit([Write("k", b"v")])
    await log.close()
    task = asyncio.ensure_future(compaction.run(log, interval=0.001))
    async with asyncio.timeout(10):
        while len(caplog.records) < 2:
            await asyncio.sleep(0)
    assert not task.done()
    assert "cannot compact the store" in caplog.text
    task.cancel()
    await asyncio.wait([task])
