"""Kubernetes quantities (`500m`, `1.5Gi`, `1e3`): exact, in whole nano-units, and back in canonical form.

Pure. Source: apimachinery's resource.Quantity. What is finer than a nano-unit is rounded away from zero and what is
over 2^63-1 is capped, as there. Fails with ValueError.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple

Format = Literal["decimal", "binary", "exponent"]

_NANO = 10**9
_MILLI = 10**6
_MAX = ((1 << 63) - 1) * _NANO
_SYNTAX = re.compile(r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?[0-9]{1,9}))?")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_SUFFIXES = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_LONGEST = 128
_HUGE = 64
"""Exponents beyond this are beyond the cap, or below a nano, whatever the (at most 128) digits: never computed."""


class _Parsed(NamedTuple):
    nanos: int
    format: Format


def parse(text: str) -> Fraction:
    """The exact value. ValueError where `text` is not a quantity."""
    return Fraction(_parse(text).nanos, _NANO)


def value(text: str) -> int:
    """The value in whole units, rounded up: bytes of memory, numbers of pods."""
    return -(-_parse(text).nanos // _NANO)


def milli(text: str) -> int:
    """The value in thousandths, rounded up: millicores of CPU."""
    return -(-_parse(text).nanos // _MILLI)


def canonical(text: str) -> str:
    """The one spelling that Kubernetes prints: `0.5` is `500m`, `1024Mi` is `1Gi`."""
    return _format(*_parse(text))


def of_milli(amount: int) -> str:
    """The canonical quantity of so many thousandths: 1500 is `1500m`, 2000 is `2`."""
    return _format(amount * _MILLI, "decimal")


def of_value(amount: int, *, binary: bool = False) -> str:
    """The canonical quantity of so many units; `binary` for bytes (`1Gi`)."""
    return _format(amount * _NANO, "binary" if binary else "decimal")


@lru_cache(maxsize=4096)
def _parse(text: str) -> _Parsed:
    found = _SYNTAX.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    if found is None:
        raise ValueError(
            f'"{text[:_LONGEST]}" is not a quantity: a number, then one of n u m k M G T P E, '
            "Ki Mi Gi Ti Pi Ei, or an exponent (500m, 1.5Gi, 1e3)"
        )
    sign, number, suffix, exponent = found.groups()
    whole, _, fraction = number.partition(".")
    digits = int((whole + fraction) or "0")
    if suffix is not None and suffix.endswith("i"):
        form: Format = "binary"
        scaled = Fraction(digits * 1024 ** _BINARY.index(suffix) * _NANO, 10 ** len(fraction))
    else:
        form = "exponent" if exponent is not None else "decimal"
        scaled = _tens(digits, (int(exponent) if exponent is not None else _DECIMAL[suffix or ""]), len(fraction))
    nanos = min(-(-scaled.numerator // scaled.denominator), _MAX)
    return _Parsed(-nanos if sign == "-" else nanos, form)


def _tens(digits: int, exponent: int, places: int) -> Fraction:
    power = max(-_LONGEST - _HUGE, min(exponent, _LONGEST + _HUGE)) - places + 9
    return Fraction(digits) * Fraction(10) ** power


def _format(nanos: int, form: Format) -> str:
    units, rest = divmod(nanos, _NANO)
    if form == "binary" and not rest and not -1024 < units < 1024:
        return _binary(units)
    if nanos == 0:
        return "0"
    exponent = -9
    while nanos % 1000 == 0 and exponent < 18:
        nanos //= 1000
        exponent += 3
    if form == "exponent":
        return f"{nanos}e{exponent}" if exponent else str(nanos)
    return f"{nanos}{_DECIMAL_SUFFIXES[exponent]}"


def _binary(units: int) -> str:
    step = 0
    while units % 1024 == 0 and step < len(_BINARY) - 1:
        units //= 1024
        step += 1
    return f"{units}{_BINARY[step]}"
