"""Waiting for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(probe: Callable[[], T | None], seconds: float = 30.0, what: str = "") -> T:
    """The first true value of `probe`; AssertionError with its last one after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what or probe}: not within {seconds:g} s; last: {value!r}"
        time.sleep(0.02)
