"""When the rules are worked on: soon after a change, not too often, again after a failure, and now and then anyway.

    trigger ──► work at once, if the last time was long enough ago; changes meanwhile are one more time of work
    failure ──► work again after a pause that doubles up to a bound
    nothing ──► look every so often

Owns time and nothing else. Model: kube-proxy's bounded frequency runner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds. interval: at least this from one start of work to the next. look: at most this between looks."""

    interval: float = 0.05
    look: float = 1.0
    retry: float = 0.5
    retry_bound: float = 5.0


class Runner:
    """Calls work(changed): changed says whether something was asked for. It returns whether it succeeded."""

    def __init__(self, work: Callable[[bool], Awaitable[bool]], pace: Pace) -> None:
        self._work = work
        self._pace = pace
        self._wanted = asyncio.Event()

    def trigger(self) -> None:
        """Ask for work. Asking again before it begins changes nothing."""
        self._wanted.set()

    async def run(self) -> None:
        """Work until cancelled; what work raises ends it."""
        loop = asyncio.get_running_loop()
        pause = self._pace.retry
        owed = False
        while True:
            await self._wait(pause if owed else self._pace.look)
            changed = self._wanted.is_set() or owed
            self._wanted.clear()
            started = loop.time()
            owed = not await self._work(changed)
            pause = min(2 * pause, self._pace.retry_bound) if owed else self._pace.retry
            # As long a rest as the work took, within bounds, so that many services do not take a whole core.
            took = loop.time() - started
            await asyncio.sleep(max(self._pace.interval - took, min(took, self._pace.look)))

    async def _wait(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._wanted.wait(), seconds)
        except TimeoutError:
            return
