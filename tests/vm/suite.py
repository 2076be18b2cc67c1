"""Runs tests of the checkout inside a VM, where a kernel is that this machine does not have."""

from __future__ import annotations

from collections.abc import Mapping

from tests.vm.machine import CHECKOUT, Machine

_NONE: Mapping[str, str] = {}


def run(machine: Machine, *arguments: str, seconds: float, environment: Mapping[str, str] = _NONE) -> str:
    """Run pytest in the guest with these arguments; fails with its report. Returns the report."""
    options = ["-q", "-p", "no:cacheprovider", "--timeout", f"{120 * machine.slowness:.0f}", "--color=no"]
    done = machine.attempt(
        CHECKOUT / ".venv/bin/python",
        *("-m", "pytest", *options, *arguments),
        seconds=seconds,
        cwd=CHECKOUT,
        env={**machine.environment, **environment},
        streamed=True,
    )
    assert done.status == 0, str(done)
    return done.text
