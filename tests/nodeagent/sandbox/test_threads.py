"""Work in threads of its own: waited for to its end, however its caller ends."""

from __future__ import annotations

import asyncio
import threading

import pytest

from nodeagent.sandbox.threads import in_fresh_thread


async def test_what_it_returns_and_raises_is_the_callers() -> None:
    assert await in_fresh_thread(threading.get_ident, "one") != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await in_fresh_thread(lambda: 1 // 0, "two")


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_caller_ends_after_the_work_however_often_it_is_cancelled(times: int) -> None:
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go.wait(10)
        ended.set()

    task = asyncio.create_task(in_fresh_thread(work, "work"))
    assert await asyncio.to_thread(begun.wait, 10)
    for _ in range(times):
        task.cancel()
        for _ in range(5):  # turns of the loop, in which a task that gave up would end
            await asyncio.sleep(0)
        assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
