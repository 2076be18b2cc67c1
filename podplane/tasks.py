"""Named background tasks: one that ends unexpectedly ends the daemon, with its name and reason.

Owns the tasks of one daemon: every `start`ed one is to run until `stop`, every `spawn`ed one may finish. A task
that its own holder cancels has ended by design. Nothing is lost: the first failure is raised by `wait`, those
that come after it, or while stopping, are logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


class TaskEnded(Exception):
    """A background task ended although it was to run on. The cause is what it raised, if it raised."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"task {name} ended unexpectedly: {reason}")
        self.name = name


class Tasks:
    """The background tasks of one event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = False
        self._failure: asyncio.Future[TaskEnded] | None = None

    def start(self, coro: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Run a task that is to run until `stop`: its return is as unexpected as its exception."""
        return self._add(coro, name, forever=True)

    def spawn(self, coro: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Run a task that may finish; its exception ends the daemon all the same."""
        return self._add(coro, name, forever=False)

    def _add(self, coro: Coroutine[Any, Any, T], name: str, *, forever: bool) -> asyncio.Task[T]:
        if self._stopping:
            coro.close()
            raise RuntimeError(f"cannot start task {name}: stopping")
        task = asyncio.get_running_loop().create_task(coro, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._forever_ended if forever else self._ended)
        return task

    def _forever_ended(self, task: asyncio.Task[Any]) -> None:
        self._ended(task)
        if not task.cancelled() and task.exception() is None and not self._stopping:
            self._fail(TaskEnded(task.get_name(), "it returned"))

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if self._stopping:
            logger.error("task %s failed while stopping", task.get_name(), exc_info=error)
            return
        ended = TaskEnded(task.get_name(), f"{type(error).__name__}: {error}")
        ended.__cause__ = error
        self._fail(ended)

    def _fail(self, ended: TaskEnded) -> None:
        failure = self._first_failure()
        if failure.done():
            logger.error("%s", ended, exc_info=ended.__cause__)
        else:
            failure.set_result(ended)

    def _first_failure(self) -> asyncio.Future[TaskEnded]:
        if self._failure is None:
            self._failure = asyncio.get_running_loop().create_future()
        return self._failure

    async def wait(self) -> None:
        """Never returns; raises TaskEnded when the first task ends unexpectedly."""
        raise await asyncio.shield(self._first_failure())

    async def stop(self, timeout: float = 10.0) -> None:
        """Cancel every task and wait until all have ended; logs those that have not after `timeout` seconds."""
        self._stopping = True
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if not tasks:
            return
        _, pending = await asyncio.wait(tasks, timeout=timeout)
        for task in pending:
            logger.error("task %s has not ended %.0f s after it was cancelled", task.get_name(), timeout)
