"""The agent's one clock: seconds since the epoch that never jump.

It is the wall clock's reading when the process started, plus what the monotonic clock has counted since: a step of the
wall clock neither ends a back-off early nor keeps a pod past its grace.
"""

from __future__ import annotations

import time


class Clock:
    """now() rises steadily while the process lives."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        return self._offset + time.monotonic()
