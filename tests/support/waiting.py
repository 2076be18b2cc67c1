"""Waiting for a condition, never for a time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SLOWNESS = float(os.environ.get("PODPLANE_SLOWNESS", "1"))
"""How many times slower than what deadlines are written for this machine is: a VM under emulation says so."""


def patient(seconds: float) -> float:
    """A deadline, stretched for a slow machine."""
    return seconds * SLOWNESS


def promised(seconds: float) -> float:
    """A time that the product keeps on a machine of its own, stretched by how many want each core of this one."""
    return patient(seconds) * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def eventually(probe: Callable[[], T | None], seconds: float = 30.0, what: str = "") -> T:
    """The first true value of `probe`; AssertionError with its last one after `seconds`."""
    deadline = time.monotonic() + patient(seconds)
    while True:
        value = probe()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what or probe}: not within {seconds:g} s; last: {value!r}"
        time.sleep(0.02)
