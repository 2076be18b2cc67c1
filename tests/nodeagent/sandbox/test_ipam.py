"""Which address is given next."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodeagent.sandbox.ipam import AddressPool, PoolExhausted, gateway


def test_the_first_addresses_follow_the_gateway() -> None:
    pool = AddressPool()
    assert gateway("10.1.2.0/24") == IPv4Address("10.1.2.1")
    assert [pool.allocate("10.1.2.0/24", ()) for _ in range(3)] == ["10.1.2.2", "10.1.2.3", "10.1.2.4"]


def test_an_address_just_given_back_is_not_the_next_one() -> None:
    pool = AddressPool()
    given_back = pool.allocate("10.1.2.0/24", ())
    later = [pool.allocate("10.1.2.0/24", ()) for _ in range(252)]
    assert given_back not in later
    assert pool.allocate("10.1.2.0/24", ()) == given_back


def test_after_a_restart_it_goes_on_behind_the_last_one() -> None:
    assert AddressPool(last="10.1.2.9").allocate("10.1.2.0/24", {"10.1.2.10"}) == "10.1.2.11"


def test_a_last_address_of_another_range_does_not_matter() -> None:
    assert AddressPool(last="10.9.9.9").allocate("10.1.2.0/24", ()) == "10.1.2.2"


@pytest.mark.parametrize("cidr", ["10.1.2.0/30", "10.1.2.0/29"])
def test_a_full_range_is_an_error(cidr: str) -> None:
    pool, taken = AddressPool(), set[str]()
    for _ in range(IPv4Network(cidr).num_addresses - 3):
        taken.add(pool.allocate(cidr, taken))
    with pytest.raises(PoolExhausted, match=r"all \d of"):
        pool.allocate(cidr, taken)


@settings(deadline=None)
@given(st.sets(st.integers(2, 14)), st.integers(0, 15))
def test_what_is_given_is_free_and_for_pods(taken: set[int], last: int) -> None:
    used = {f"10.0.0.{number}" for number in taken}
    if len(used) == 13:
        return
    chosen = AddressPool(last=f"10.0.0.{last}").allocate("10.0.0.0/28", used)
    assert chosen not in used
    assert 2 <= int(chosen.split(".")[-1]) <= 14
