"""Trials in an emulated VM: a mode that this machine's kernel has not got, and nftables beside it.

An emulator's seconds are none of hardware's: all takes many times as long. What tells is how cost grows with size and
how the two compare; a goal that is met even here is met.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from bench.rules.race import Found, Outcome
from bench.rules.scale import Size
from bench.rules.trial import Figures
from tests.vm.kernel import Unavailable
from tests.vm.machine import Machine, Shape

IN_VM = " in a VM"
SIZES = (Size(1_000, 2), Size(10_000, 2))
_BESIDE = "nftables"
_LEFT_OUT = f"NOT RUN: a VM is given {' and '.join(map(str, SIZES))}"
_SECONDS = 120.0
"""What a trial may take, were the machine not emulated."""


def race(found: Found, say: Callable[[str], None]) -> Found:
    """Those that no size of `found` has because the kernel lacks them."""
    missing = [name for name, outcomes in found.items() if all(map(_is_lacking, outcomes.values()))]
    if not missing:
        return {}
    names = [*missing, _BESIDE]
    sizes = list(next(iter(found.values())))
    try:
        with Machine(Shape("bench", memory=2048)) as machine:
            return {name + IN_VM: {size: _try(machine, name, size, say) for size in sizes} for name in names}
    except Unavailable as reason:
        say(f"services: no VM for {', '.join(missing)}: {reason}")
        return {}


def _is_lacking(outcome: Outcome) -> bool:
    return isinstance(outcome, str) and "kernel module" in outcome


def _try(machine: Machine, name: str, size: Size, say: Callable[[str], None]) -> Outcome:
    if size not in SIZES:
        return _LEFT_OUT
    say(f"services: {name}, {size}, in a VM")
    trial = ("bench.rules.trial", name, f"{size.services}x{size.endpoints}", "", "whole")
    told = json.loads(machine.python("-m", *trial, seconds=_SECONDS).splitlines()[-1])
    return f"SKIPPED: {told['skipped']}" if "skipped" in told else Figures(**told)
