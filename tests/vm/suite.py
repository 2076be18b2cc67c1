"""Runs tests of the checkout inside a VM, where a kernel is that this machine does not have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from tests.vm.channel import Remote, show
from tests.vm.machine import CHECKOUT, Machine

_NONE: Mapping[str, str] = {}


def start(
    machine: Machine,
    *arguments: str,
    environment: Mapping[str, str] = _NONE,
    sink: Callable[[bytes], None] | None = None,
) -> Remote:
    """Start pytest in the guest with these arguments; sink gets its output as it comes."""
    # Hypothesis' plugin imports all of it, which takes an emulated Python as long as the rest of a start.
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "--color=no"]
    options += ["--timeout", f"{120 * machine.slowness:.0f}"]
    remote = machine.start(
        CHECKOUT / ".venv/bin/python",
        *("-m", "pytest", *options, *arguments),
        cwd=CHECKOUT,
        env={**machine.environment, **environment},
        sink=sink,
    )
    remote.feed(b"")
    return remote


def passed(machine: Machine, remote: Remote, *, seconds: float) -> int:
    """Wait for a pytest and say how many tests passed; none may have failed."""
    status = remote.wait(seconds * machine.slowness)
    report = remote.said()
    assert status == 0, report
    found = re.search(r"(\d+) passed", report)
    assert found is not None, report
    return int(found[1])


def run(machine: Machine, *arguments: str, seconds: float, environment: Mapping[str, str] = _NONE) -> int:
    """Run pytest in the guest with these arguments; fails with its report. Returns how many tests passed."""
    return passed(machine, start(machine, *arguments, environment=environment, sink=show), seconds=seconds)
