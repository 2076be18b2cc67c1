"""Which node is reached how, by the routes of the one that asks."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from nodeagent.sandbox.peers import mtu, plan, tunnel_end

OWN, OTHER = IPv4Network("10.77.1.0/24"), IPv4Network("10.77.2.0/24")
ROUTES = [
    (IPv4Network("0.0.0.0/0"), False),
    (IPv4Network("198.18.0.0/24"), True),
    (IPv4Network("198.18.0.128/25"), False),
    (IPv4Network("198.18.7.7/32"), True),
]


@pytest.mark.parametrize(
    ("address", "mode", "tunneled"),
    [
        ("198.18.0.9", "auto", False),
        ("198.18.0.9", "always", True),
        ("198.18.0.200", "auto", True),  # the longer match leads through a router
        ("198.18.7.7", "auto", False),
        ("192.0.2.1", "auto", True),
        ("192.0.2.1", "never", False),
    ],
)
def test_a_node_behind_a_router_is_reached_in_a_tunnel(address: str, mode: str, tunneled: bool) -> None:
    made = plan({str(OTHER): address}, OWN, ROUTES, mode)
    peers = {OTHER: IPv4Address(address)}
    assert (made.direct, made.tunneled) == (({}, peers) if tunneled else (peers, {}))
    assert made.nodes == {IPv4Address(address)}
    assert mtu(1500, made) == (1450 if tunneled else 1500)


def test_a_node_that_no_route_leads_to_is_left_to_the_kernels_words() -> None:
    assert plan({str(OTHER): "192.0.2.1"}, OWN, ROUTES[1:], "auto").tunneled == {}


def test_what_is_not_understood_takes_nothing_from_the_others() -> None:
    strange = {"10.77.3.0/24": "nowhere", "10.77.4.9/24": "198.18.0.4"}
    made = plan({**strange, str(OTHER): "198.18.0.2", str(OWN): "198.18.0.1"}, OWN, ROUTES, "auto")
    assert made.direct == {OTHER: IPv4Address("198.18.0.2")}
    assert made.problems.keys() == strange.keys()
    assert "nowhere" in made.problems["10.77.3.0/24"]


def test_a_tunnels_end_is_no_pods_address() -> None:
    assert tunnel_end(OTHER) == IPv4Address("10.77.2.0")
