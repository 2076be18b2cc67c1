"""Allocation of cluster addresses and node ports."""

from __future__ import annotations

import ipaddress
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.api import allocate
from podplane.v1 import meta_pb2, service_pb2

NETWORK = ipaddress.IPv4Network("10.96.0.0/24")
PORTS = range(30000, 30100)


def service(name: str, address: str, *ports: tuple[int, str]) -> service_pb2.Service:
    found = service_pb2.Service(metadata=meta_pb2.ObjectMeta(name=name, namespace="default"))
    found.spec.clusterIP = address
    for number, protocol in ports:
        found.spec.ports.add(nodePort=number, protocol=protocol)
    return found


def test_what_others_hold_is_taken_and_ones_own_is_not() -> None:
    ledger = allocate.Ledger([service("a", "10.96.0.5", (30001, "TCP")), service("b", "None"), service("c", "")])
    others = ledger.taken("default", "b")
    assert "10.96.0.5" in others.addresses
    assert (30001, "TCP") in others.ports
    assert (30001, "UDP") not in others.ports
    assert "None" not in ledger.taken("default", "a").addresses
    assert "10.96.0.5" not in ledger.taken("default", "a").addresses


def test_a_ledger_follows_changes_and_deletions() -> None:
    ledger = allocate.Ledger([service("a", "10.96.0.5", (30001, "TCP"))])
    ledger.put(service("a", "10.96.0.5", (30002, "TCP")))
    assert (30001, "TCP") not in ledger.taken("default", "b").ports
    assert (30002, "TCP") in ledger.taken("default", "b").ports
    ledger.drop("default", "a")
    ledger.drop("default", "a")
    assert "10.96.0.5" not in ledger.taken("default", "b").addresses


def test_the_same_dice_give_the_same_address() -> None:
    first, second = (allocate.cluster_address(NETWORK, set(), random.Random(7)) for _ in range(2))
    assert first == second


@settings(deadline=None)
@given(st.integers(0, 2**32), st.sets(st.integers(2, 254), max_size=252))
def test_addresses_are_free_and_usable(seed: int, used: set[int]) -> None:
    taken = {f"10.96.0.{last}" for last in used}
    found = allocate.cluster_address(NETWORK, taken, random.Random(seed))
    assert found is not None
    assert found not in taken
    assert 2 <= int(found.rpartition(".")[2]) <= 254


def test_every_address_is_given_before_the_range_is_full() -> None:
    taken: set[str] = set()
    rng = random.Random(3)
    while (found := allocate.cluster_address(NETWORK, taken, rng)) is not None:
        taken.add(found)
    assert taken == {f"10.96.0.{last}" for last in range(2, 255)}


def test_the_lower_band_is_left_to_people_until_the_rest_is_full() -> None:
    rng = random.Random(3)
    picked = {allocate.node_port(PORTS, "TCP", set(), set(), rng) for _ in range(500)}
    assert min(filter(None, picked)) >= PORTS[16]
    full = {(port, "TCP") for port in PORTS[16:]}
    assert allocate.node_port(PORTS, "TCP", set(), full, rng) in PORTS[:16]


def test_a_number_may_serve_tcp_and_udp() -> None:
    taken = {(port, "TCP") for port in PORTS}
    assert allocate.node_port(PORTS, "TCP", set(), taken, random.Random(1)) is None
    assert allocate.node_port(PORTS, "UDP", set(), taken, random.Random(1)) in PORTS


def test_a_network_too_small_for_services_is_full() -> None:
    assert allocate.cluster_address(ipaddress.IPv4Network("10.0.0.0/31"), set(), random.Random(1)) is None
