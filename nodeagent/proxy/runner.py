"""When the rules are worked on: soon after a change, not too often, again after a failure, and now and then anyway.

    trigger ──► work at once, if the last time was long enough ago; changes meanwhile are one more time of work
    suspect ──► look at once, likewise; it puts off no work that is owed
    nothing to work on yet ──► what comes then is worked on at once, however soon
    failure ──► work again after a pause that doubles up to a bound
    a look that left something ──► look again after a short pause, however often that happens
    nothing ──► look every so often

Owns time and nothing else. Model: kube-proxy's bounded frequency runner.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds. interval: at least this from one start of work to the next. look: at most this between looks.

    rest: at most this after work that took long, so that many services do not take a whole core. retry: half of the
    first pause after a failure.
    """

    interval: float = 0.02
    look: float = 5.0
    rest: float = 1.0
    retry: float = 0.25
    retry_bound: float = 5.0


class Outcome(enum.Enum):
    """LEFT is a look's: it mended, and somebody has changed the rules again meanwhile. EARLY: nothing was asked for."""

    DONE = enum.auto()
    EARLY = enum.auto()
    LEFT = enum.auto()
    FAILED = enum.auto()


class Runner:
    """Calls work(changed): changed says whether something was asked for; else it is a look."""

    def __init__(self, work: Callable[[bool], Awaitable[Outcome]], pace: Pace) -> None:
        self._work = work
        self._pace = pace
        self._woken = asyncio.Event()
        self._asked = False

    def trigger(self) -> None:
        """Ask for work. Asking again before it begins changes nothing."""
        self._asked = True
        self._woken.set()

    def suspect(self) -> None:
        """Ask for a look: somebody may have changed the rules."""
        self._woken.set()

    async def run(self) -> None:
        """Work until cancelled; what work raises ends it."""
        loop = asyncio.get_running_loop()
        pause, owed = self._pace.retry, False
        due = loop.time() + self._pace.look
        while True:
            await self._wait(due - loop.time())
            started = loop.time()
            changed = self._asked or (owed and started >= due)
            self._woken.clear()
            self._asked = False
            outcome = await self._work(changed)
            # As long a rest as the work took, within bounds.
            took = loop.time() - started
            if outcome is not Outcome.EARLY:
                await asyncio.sleep(max(self._pace.interval - took, min(took, self._pace.rest)))
            if outcome is Outcome.LEFT:
                loop.call_later(self._pace.retry, self.suspect)
            if owed and not changed:
                continue  # a look puts off nothing that is owed
            owed = outcome is Outcome.FAILED
            pause = min(2 * pause, self._pace.retry_bound) if owed else self._pace.retry
            due = loop.time() + (pause if owed else self._pace.look)

    async def _wait(self, seconds: float) -> None:
        # Not wait_for: in Python 3.11 it loses a cancellation that comes together with the event.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
