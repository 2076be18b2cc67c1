"""Names, labels and keys: Kubernetes' syntaxes."""

from __future__ import annotations

import pytest

from podplane import names


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (names.dns_label, ["a", "a-1", "1a", "a" * 63], ["", "A", "-a", "a-", "a.b", "a_b", "a" * 64, "a\n", "é"]),
        (names.dns_subdomain, ["a", "a.b-c.1", "a" * 253], ["", "a..b", ".a", "A.b", "a" * 254]),
        (names.dns_1035_label, ["a", "a1"], ["1a", "", "a" * 64]),
        (names.label_value, ["", "a", "A_b.c-1"], ["-a", "a b", "a" * 64, "a/b"]),
        (names.qualified_name, ["a", "A_b", "x.y/z", "x/Z.1"], ["", "/a", "a/", "a/b/c", "X/a", "a" * 64, "-"]),
        (names.env_name, ["A", "a.b-c", "_x", "x" * 1000], ["", "1a", "a b", "a=b", "é"]),
        (names.config_key, ["a", ".a", "a..b", "A_b-1"], ["", ".", "..", "..a", "a/b", "a b", "a" * 254]),
        (names.port_name, ["http", "a-1", "1a"], ["", "1", "-a", "a-", "a--b", "A", "a" * 16, "a_b"]),
    ],
)
def test_syntaxes(check: names.Check, good: list[str], bad: list[str]) -> None:
    assert {value: check(value) for value in good} == {value: [] for value in good}
    assert [value for value in bad if not check(value)] == []


def test_a_very_long_value_is_judged_at_once() -> None:
    assert names.dns_subdomain("a-" * 5_000_000)
