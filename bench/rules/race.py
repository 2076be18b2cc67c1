"""Runs trials, each in a process of its own, smallest size first, and leaves out what would take too long.

Owns the processes: one that outstays its time is ended with all that it started. What was left out has its reason.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from bench.results import median
from bench.rules import memory
from bench.rules.scale import Size
from bench.rules.trial import Figures, candidates

LIMIT = 100.0
"""Seconds that a cold load may take; sizes that look like more are left out."""
_TRIAL_SECONDS = 4 * LIMIT
_AGAIN = 3.0
"""Cold loads that take less are loaded three times, and the median counts."""
_STEEP = 2.0
"""How cost is taken to grow with size (as its power) until two sizes tell."""

Outcome = Figures | str
"""Figures, or why there are none."""
Found = dict[str, dict[Size, Outcome]]
"""By subject and size."""


def race(sizes: Sequence[Size], say: Callable[[str], None]) -> Found:
    """All subjects at all sizes."""
    found: Found = {}
    for name in candidates():
        outcomes, said = found.setdefault(name, {}), set[Outcome]()
        for size in sorted(sizes, key=_rules):
            outcomes[size] = _reason(outcomes, size) or _try(name, size, say)
            if isinstance(outcomes[size], str) and outcomes[size] not in said:
                said.add(outcomes[size])
                say(f"services: {name}, {size}: {outcomes[size]}")
    return found


def _rules(size: Size) -> int:
    """About how many rules a chain for each service and each endpoint makes."""
    return 2 * size.services + 3 * size.total


def _reason(before: Mapping[Size, Outcome], size: Size) -> str:
    """Why a size is left out; "" where it is not. A subject that is missing is so at each size."""
    if missing := next((outcome for outcome in before.values() if isinstance(outcome, str)), ""):
        return missing if missing.startswith("SKIPPED") else left_out(before, size) or missing
    return left_out(before, size)


def left_out(before: Mapping[Size, Outcome], size: Size) -> str:
    known = [(_rules(at), found.cold) for at, found in before.items() if isinstance(found, Figures)]
    if not known:
        return ""
    (rules, seconds) = known[-1]
    power = _STEEP
    if len(known) > 1:
        (fewer, sooner) = known[-2]
        power = min(2.5, max(1.0, math.log(seconds / sooner) / math.log(rules / fewer)))
    expected = seconds * (_rules(size) / rules) ** power
    return f"CAPPED: it would take about {expected:.0f} s" if expected > LIMIT else ""


def _try(name: str, size: Size, say: Callable[[str], None]) -> Outcome:
    say(f"services: {name}, {size}")
    first = _run(name, size, "whole")
    if isinstance(first, str) or first.cold > _AGAIN:
        return first
    more = [again for again in (_run(name, size, "cold") for _ in range(2)) if isinstance(again, Figures)]
    return _with_cold(first, [first, *more])


def _with_cold(first: Figures, all_of_it: Sequence[Figures]) -> Figures:
    return replace(
        first,
        cold=median([one.cold for one in all_of_it]),
        cold_cpu=median([one.cold_cpu for one in all_of_it]),
    )


def _run(name: str, size: Size, extent: str) -> Outcome:
    with memory.group(f"{size.services}x{size.endpoints}") as group:
        argv = [sys.executable, "-m", "bench.rules.trial", name, f"{size.services}x{size.endpoints}"]
        process = subprocess.Popen(
            [*argv, str(group or ""), extent],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            out, error = process.communicate(timeout=_TRIAL_SECONDS)
        except subprocess.TimeoutExpired:
            return f"CAPPED: not done within {_TRIAL_SECONDS:.0f} s"
        finally:
            _end(process)
    if process.returncode != 0:
        return f"FAILED: {(error.strip().splitlines() or ['without a word'])[-1][:300]}"
    told = json.loads(out.splitlines()[-1])
    return f"SKIPPED: {told['skipped']}" if "skipped" in told else Figures(**told)


def _end(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.communicate()
