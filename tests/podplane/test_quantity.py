"""Quantities: exact values, Kubernetes' rounding, one canonical spelling."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane import quantity


@pytest.mark.parametrize(
    ("text", "exact", "canonical"),
    [
        ("0", Fraction(0), "0"),
        ("-0Ki", Fraction(0), "0"),
        ("1", Fraction(1), "1"),
        ("0.5", Fraction(1, 2), "500m"),
        (".5", Fraction(1, 2), "500m"),
        ("1.", Fraction(1), "1"),
        ("100m", Fraction(1, 10), "100m"),
        ("1500m", Fraction(3, 2), "1500m"),
        ("2000m", Fraction(2), "2"),
        ("1k", Fraction(1000), "1k"),
        ("100000", Fraction(100000), "100k"),
        ("1024Mi", Fraction(1 << 30), "1Gi"),
        ("1.5Gi", Fraction(3 << 29), "1536Mi"),
        ("0.5Ki", Fraction(512), "512"),
        ("1000Ki", Fraction(1024000), "1000Ki"),
        ("0.1Ki", Fraction(1024, 10), "102400m"),
        ("1e3", Fraction(1000), "1e3"),
        ("1E-3", Fraction(1, 1000), "1e-3"),
        ("12e6", Fraction(12000000), "12e6"),
        ("1E", Fraction(10**18), "1E"),
        ("-5", Fraction(-5), "-5"),
        ("+5", Fraction(5), "5"),
        ("1n", Fraction(1, 10**9), "1n"),
        ("0.1n", Fraction(1, 10**9), "1n"),
        ("-0.1n", Fraction(-1, 10**9), "-1n"),
        ("100E", Fraction((1 << 63) - 1), str((1 << 63) - 1)),
        ("1e999999999", Fraction((1 << 63) - 1), f"{(1 << 63) - 1}"),
        ("1e-999999999", Fraction(1, 10**9), "1e-9"),
        (" 1 ", Fraction(1), "1"),
    ],
)
def test_value_and_spelling(text: str, exact: Fraction, canonical: str) -> None:
    assert quantity.parse(text) == exact
    assert quantity.canonical(text) == canonical


@pytest.mark.parametrize(
    "text", ["", "x", "1x", "1 Gi", "1.2.3", ".", "-", "1gi", "1KI", "1e", "0x10", "1" * 200, "１"]
)
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        quantity.parse(text)


@pytest.mark.parametrize(
    ("text", "milli", "value"),
    [("1m", 1, 1), ("1n", 1, 1), ("1500m", 1500, 2), ("-1500m", -1500, -1), ("1Ki", 1024000, 1024)],
)
def test_whole_numbers_are_rounded_up(text: str, milli: int, value: int) -> None:
    assert (quantity.milli(text), quantity.value(text)) == (milli, value)


@settings(deadline=None)
@given(st.integers(-(10**18), 10**18))
def test_milli_round_trip(amount: int) -> None:
    assert quantity.milli(quantity.of_milli(amount)) == amount


@settings(deadline=None)
@given(st.integers(-(2**62), 2**62), st.booleans())
def test_value_round_trip(amount: int, binary: bool) -> None:
    assert quantity.value(quantity.of_value(amount, binary=binary)) == amount


SUFFIXES = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "e3", "e-2", "E5"]


@settings(deadline=None)
@given(
    st.from_regex(r"[+-]?[0-9]{1,12}(\.[0-9]{0,6})?", fullmatch=True, alphabet="+-.0123456789"),
    st.sampled_from(SUFFIXES),
)
def test_canonical_is_stable_and_keeps_the_value(number: str, suffix: str) -> None:
    canonical = quantity.canonical(number + suffix)
    assert quantity.canonical(canonical) == canonical
    assert quantity.parse(canonical) == quantity.parse(number + suffix)
