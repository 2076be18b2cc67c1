"""The agent's one clock: seconds since the epoch that rise steadily, and follow the wall clock when it is set.

Between two looks it is the wall clock's reading at the last one plus what the monotonic clock has counted since.
`follow` takes a step over: times that people see are wall times, and who has timers (stepping.py) moves them along, so
that a step neither ends a back-off early nor keeps a pod past its grace.
"""

from __future__ import annotations

import time
from collections.abc import Callable

STEP = 0.5
"""Seconds from which on a difference is a step; below it is drift, and waits."""


class Clock:
    """now() rises steadily between two calls of follow()."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._steady = wall, steady
        self.offset = wall() - steady()
        """Wall clock minus monotonic clock: the same for every process of this boot until somebody sets the clock."""

    def now(self) -> float:
        return self.offset + self._steady()

    def follow(self) -> float:
        """Take a step of the wall clock over; by how many seconds, 0.0 where there was none."""
        step = self._wall() - self.now()
        if abs(step) < STEP:
            return 0.0
        self.offset += step
        return step
