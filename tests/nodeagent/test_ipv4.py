"""Addresses as ipaddress takes them, which is the model."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given, settings
from hypothesis import strategies as st

from nodeagent.ipv4 import is_address, number

SPELLINGS = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.lists(st.integers(0, 300).map(str), min_size=3, max_size=5).map(".".join),
    st.from_regex(r"[0-9 .٣+-]{0,16}"),
)


@settings(deadline=None)
@given(SPELLINGS)
def test_what_ipaddress_takes_is_an_address_and_nothing_else(text: str) -> None:
    try:
        wanted = int(IPv4Address(text))
    except ValueError:
        wanted = None
    assert number(text) == wanted
    assert is_address(text) == (wanted is not None)
