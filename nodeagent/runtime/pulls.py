"""Pulls in progress: one for all who wait for the same, ended when nobody waits any more.

Owns their tasks. Never knows how an image is pulled. The same: the same reference, asked for with the same logins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from typing import Any

from nodeagent.runtime.image import Image

Tell = Callable[[str], None]
"""Takes in how far a pull is, in words."""
Work = Callable[[Tell], Coroutine[Any, Any, Image]]


@dataclass(slots=True)
class _Pull:
    task: asyncio.Task[Image] = field(init=False)
    listeners: list[Tell] = field(default_factory=list)

    def tell(self, words: str) -> None:
        for listener in list(self.listeners):
            listener(words)


class Pulls:
    """All pulls of a node."""

    def __init__(self) -> None:
        self._running: dict[Hashable, _Pull] = {}
        self._tasks: set[asyncio.Task[Image]] = set()

    @property
    def depth(self) -> int:
        """How many there are."""
        return len(self._tasks)

    async def join(self, key: Hashable, work: Work, tell: Tell) -> Image:
        """The outcome of the pull `key`, begun by `work` where there is none. A wait that is cancelled ends only
        itself; the last one takes the pull along."""
        pull = self._running.get(key) or self._begin(key, work)
        pull.listeners.append(tell)
        try:
            return await asyncio.shield(pull.task)
        finally:
            pull.listeners.remove(tell)
            if not pull.listeners and not pull.task.done():
                # Who comes now begins anew: this one is as good as over.
                self._end(key, pull)
                pull.task.cancel()

    async def close(self) -> None:
        """End them all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, key: Hashable, work: Work) -> _Pull:
        pull = self._running[key] = _Pull()
        pull.task = asyncio.get_running_loop().create_task(work(pull.tell), name="image pull")
        self._tasks.add(pull.task)
        pull.task.add_done_callback(lambda task: self._done(key, pull, task))
        return pull

    def _done(self, key: Hashable, pull: _Pull, task: asyncio.Task[Image]) -> None:
        self._tasks.discard(task)
        self._end(key, pull)
        if not task.cancelled():
            # Asked for, so that a failure whose waiters have all gone is not reported as forgotten.
            task.exception()

    def _end(self, key: Hashable, pull: _Pull) -> None:
        if self._running.get(key) is pull:
            del self._running[key]
