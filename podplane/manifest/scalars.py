"""What a plain YAML scalar means to kubectl: YAML 1.1 as Go's parser reads it, with its exceptions.

Pure. `yes` is a boolean and `0644` is octal, but `12:30:45` and `2024-01-01` are strings. The same table decides,
when printing, which strings need quotes.
"""

from __future__ import annotations

import re

Scalar = None | bool | int | float | str

_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}
_INTEGER = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?")
_LONGEST_NUMBER = 64
"""Longer ones stay strings: converting thousands of digits takes quadratic time."""


def resolve(text: str) -> Scalar:
    """The value of a plain (unquoted, untagged) scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789" or len(text) > _LONGEST_NUMBER:
        return text
    plain = text.replace("_", "")
    if (found := _INTEGER.fullmatch(plain)) is not None:
        sign, *digits = found.groups()
        base, number = next((base, part) for base, part in zip((16, 2, 8, 10), digits, strict=True) if part)
        return -int(number, base) if sign == "-" else int(number, base)
    return float(plain) if _FLOAT.fullmatch(plain) else text


def needs_quotes(text: str) -> bool:
    """True where YAML 1.1 readers, strict or not, would take `text` for something other than a string."""
    return (
        not isinstance(resolve(text), str)
        or _BASE_60.fullmatch(text) is not None
        or _DATE.fullmatch(text) is not None
        or text in ("<<", "=")
    )
