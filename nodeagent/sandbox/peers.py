"""How each other node's pods are reached: by way of the node itself, or in a tunnel to it. Pure.

A node on a link of ours is a gateway like any other (host-gw). One behind a router is not: the router does not know
the pods. So each pair of nodes decides by its own routes. Where two would not agree (one has the other on its link by
its netmask, not so the other way round), `always` is for all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

MODES = ("auto", "always", "never")
"""When a peer is reached in a tunnel: where it is not on a link of ours, always, never."""
PORT = 8472
"""UDP: Linux's own choice, which leaves IANA's 4789 to virtual switches below the machines."""
OVERHEAD = 50
"""Bytes that VXLAN over IPv4 adds: Ethernet 14, IP 20, UDP 8, VXLAN 8."""

Peers = Mapping[IPv4Network, IPv4Address]
"""The pods' range of each other node → the node's address."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Who is reached how, and what was not understood: range → why."""

    direct: Peers = field(default_factory=dict)
    tunneled: Peers = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def nodes(self) -> frozenset[IPv4Address]:
        """The addresses of all other nodes."""
        return frozenset((*self.direct.values(), *self.tunneled.values()))


def plan(
    node_routes: Mapping[str, str], own: IPv4Network, routes: Collection[tuple[IPv4Network, bool]], mode: str
) -> Plan:
    """Decide for each other node. node_routes: range → InternalIP, as reported. own: this node's range.

    routes: those of this node but ours: destination, and whether it is on a link itself. One entry that is no range or
    no address takes nothing from the others.
    """
    direct: dict[IPv4Network, IPv4Address] = {}
    tunneled: dict[IPv4Network, IPv4Address] = {}
    problems = {}
    for cidr, address in node_routes.items():
        try:
            peer, pods = IPv4Address(address), IPv4Network(cidr)
        except (AddressValueError, NetmaskValueError, ValueError) as error:
            problems[cidr] = f"cannot route {cidr} to {address}: {error}"
            continue
        if pods != own:
            tunnel = mode == "always" or (mode == "auto" and not _is_on_link(peer, routes))
            (tunneled if tunnel else direct)[pods] = peer
    return Plan(direct, tunneled, problems)


def _is_on_link(peer: IPv4Address, routes: Collection[tuple[IPv4Network, bool]]) -> bool:
    """By the longest match; where there is no route at all too, so that the kernel says what is wrong."""
    matching = [(destination.prefixlen, on_link) for destination, on_link in routes if peer in destination]
    return max(matching, default=(0, True))[1]


def tunnel_end(pods: IPv4Network) -> IPv4Address:
    """A node's address inside the tunnel: the first of its range, which no pod and no bridge has."""
    return pods.network_address


def mtu(uplink: int, plan: Plan) -> int:
    """What new pods may send in one packet. Older ones learn a smaller size on the way, by ICMP."""
    return uplink - OVERHEAD if plan.tunneled else uplink
