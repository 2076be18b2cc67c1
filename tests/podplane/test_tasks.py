"""Named tasks: an unexpected end is told by name and reason, a designed one is not."""

from __future__ import annotations

import asyncio
import logging

import pytest

from podplane.tasks import TaskEnded, Tasks


async def forever() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise ValueError("no such luck")


async def finish() -> str:
    return "done"


async def test_an_exception_is_raised_by_wait_with_name_and_reason() -> None:
    tasks = Tasks()
    tasks.start(forever(), name="other")
    tasks.start(fail(), name="scheduler")
    with pytest.raises(TaskEnded, match="task scheduler ended unexpectedly: ValueError: no such luck") as ended:
        await asyncio.wait_for(tasks.wait(), 5)
    assert isinstance(ended.value.__cause__, ValueError)
    assert ended.value.name == "scheduler"
    await tasks.stop()


async def test_a_return_is_unexpected_where_a_task_is_to_run_on() -> None:
    tasks = Tasks()
    tasks.start(finish(), name="watch")
    with pytest.raises(TaskEnded, match="task watch ended unexpectedly: it returned"):
        await asyncio.wait_for(tasks.wait(), 5)


async def test_a_job_may_finish_but_not_fail() -> None:
    tasks = Tasks()
    assert await tasks.spawn(finish(), name="job") == "done"
    tasks.spawn(fail(), name="bad job")
    with pytest.raises(TaskEnded, match="bad job"):
        await asyncio.wait_for(tasks.wait(), 5)


async def test_a_cancelled_task_ended_by_design() -> None:
    tasks = Tasks()
    task = tasks.start(forever(), name="session")
    waiting = asyncio.ensure_future(tasks.wait())
    task.cancel()
    await asyncio.wait([task])
    tasks.start(fail(), name="the real one")
    with pytest.raises(TaskEnded, match="the real one"):
        await asyncio.wait_for(waiting, 5)


async def test_stop_ends_every_task_and_runs_their_cleanup() -> None:
    tasks, cleaned = Tasks(), []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(name)

    started = [tasks.start(work(name), name=name) for name in ("a", "b")]
    await asyncio.sleep(0)
    await tasks.stop()
    assert sorted(cleaned) == ["a", "b"]
    assert all(task.cancelled() for task in started)
    with pytest.raises(RuntimeError, match="cannot start task late: stopping"):
        tasks.start(forever(), name="late")
    await tasks.stop()


async def test_a_failure_while_stopping_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks()

    async def stumble() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("while leaving")

    tasks.start(stumble(), name="clumsy")
    await asyncio.sleep(0)
    await tasks.stop()
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.ERROR, "task clumsy failed while stopping")
    ]


async def test_a_task_that_does_not_end_is_named(caplog: pytest.LogCaptureFixture) -> None:
    tasks, release = Tasks(), asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    task = tasks.start(stubborn(), name="stubborn")
    await asyncio.sleep(0)
    await tasks.stop(timeout=0.01)
    assert "task stubborn has not ended" in caplog.text
    release.set()
    await task


async def test_a_second_failure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks()
    started = [tasks.start(fail(), name=name) for name in ("first", "second")]
    await asyncio.wait(started)
    with pytest.raises(TaskEnded, match="first"):
        await asyncio.wait_for(tasks.wait(), 5)
    assert "task second ended unexpectedly" in caplog.text
