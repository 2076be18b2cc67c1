"""Spans of time as people write and read them: `1h30m` in, kubectl's AGE column out. Pure; seconds throughout."""

from __future__ import annotations

import re

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86400, 365 * 86400


def parse(text: str) -> float:
    """Seconds of a Go duration (`300ms`, `-1.5h`, `1h30m`, `0`). ValueError where it is none."""
    rest = text.lstrip("+-") if text[:1] in ("+", "-") else text
    if text.count("+") + text.count("-") > 1 or not rest:
        raise _not_a_duration(text)
    if rest == "0":
        return 0.0
    total, at = 0.0, 0
    while at < len(rest):
        found = _PART.match(rest, at)
        if found is None:
            raise _not_a_duration(text)
        total += float(found[1]) * _UNITS[found[2]]
        at = found.end()
    return -total if text.startswith("-") else total


def _not_a_duration(text: str) -> ValueError:
    return ValueError(f'"{text}" is not a duration: numbers with units h, m, s, ms (1h30m, 10s, 500ms)')


def human(seconds: float) -> str:
    """As kubectl's AGE: two units at most, coarser the longer it is (`90s`, `5m30s`, `3h`, `2d4h`)."""
    whole = int(seconds)
    if whole < 0:
        return "0s" if whole == -1 else "<invalid>"
    if whole < 2 * _MINUTE:
        return f"{whole}s"
    if whole < 10 * _MINUTE:
        return _pair(whole, _MINUTE, "m", 1, "s")
    if whole < 3 * _HOUR:
        return f"{whole // _MINUTE}m"
    if whole < 8 * _HOUR:
        return _pair(whole, _HOUR, "h", _MINUTE, "m")
    if whole < 2 * _DAY:
        return f"{whole // _HOUR}h"
    if whole < 8 * _DAY:
        return _pair(whole, _DAY, "d", _HOUR, "h")
    if whole < 2 * _YEAR:
        return f"{whole // _DAY}d"
    return _pair(whole, _YEAR, "y", _DAY, "d") if whole < 8 * _YEAR else f"{whole // _YEAR}y"


def _pair(seconds: int, unit: int, name: str, finer: int, finer_name: str) -> str:
    rest = seconds % unit // finer
    return f"{seconds // unit}{name}{rest}{finer_name}" if rest else f"{seconds // unit}{name}"
