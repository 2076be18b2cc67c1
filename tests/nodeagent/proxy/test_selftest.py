"""The self-test of a proxy mode: what fails is its answer."""

from __future__ import annotations

import threading

from nodeagent.proxy import selftest
from nodeagent.proxy.mode import Mode, RulesUnavailable


async def test_what_a_mode_lacks_is_the_answer() -> None:
    async def open() -> Mode:
        raise RulesUnavailable("no such module")

    assert await selftest.missing(open) == "no such module"


async def test_one_that_ends_late_says_so_and_ends_quietly() -> None:
    goes_on = threading.Event()

    async def open() -> Mode:
        goes_on.wait(20)
        raise RulesUnavailable("no such module")

    assert await selftest.missing(open, deadline=0.01) == "its self-test did not end within 0.01 s"
    goes_on.set()
    for thread in threading.enumerate():
        if thread.name == "proxy self-test":
            thread.join(20)  # pytest fails of what a thread raises
