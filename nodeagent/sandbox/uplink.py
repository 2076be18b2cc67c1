"""How the node reaches others, and what of its own network stands in the way of a pod range.

Reads links, addresses and routes; changes none. Fails with SandboxFailure where there is no uplink, OSError where
netlink does not answer.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from nodeagent.netlink import Socket
from nodeagent.sandbox import links
from nodeagent.sandbox.failure import SandboxFailure


@dataclass(frozen=True, slots=True)
class Uplink:
    """How the node reaches the others. index: the interface's."""

    name: str
    address: IPv4Address
    mtu: int
    index: int


def present(netlink: Socket) -> list[links.Link]:
    """Every link of this namespace: one for each pod, some 20 µs each."""
    return [links.read_link(body) for body in netlink.dump(links.list_links())]


def find_uplink(
    netlink: Socket, there: Collection[links.Link], ours: Collection[str], node_ip: str | None = None
) -> Uplink:
    """Find the interface that holds node_ip; without one, that of the default route, or else the first with an address.

    there: all links. ours: the names of our own, which are none. Raises SandboxFailure.
    """
    found = {link.index: link for link in there}
    held = [links.read_address(body) for body in netlink.dump(links.list_addresses())]
    usable = [item for item in held if item.scope == 0 and item.index in found and found[item.index].name not in ours]
    if node_ip is not None:
        usable = [item for item in usable if item.interface.ip == IPv4Address(node_ip)]
    else:
        default = next((route for route in routes(netlink) if route.destination.prefixlen == 0), None)
        if default is not None:
            usable = [item for item in usable if item.index == default.output] or usable
    if not usable:
        wanted = f"the address {node_ip}" if node_ip else "an IPv4 address"
        raise SandboxFailure(f"cannot find the node's uplink: no interface has {wanted}")
    link = found[usable[0].index]
    return Uplink(link.name, usable[0].interface.ip, link.mtu, link.index)


def routes(netlink: Socket) -> list[links.Route]:
    """The unicast routes of the main table."""
    return [route for body in netlink.dump(links.list_routes()) if (route := links.read_route(body)) is not None]


def addresses(netlink: Socket, index: int) -> list[IPv4Interface]:
    """The addresses of an interface."""
    found = map(links.read_address, netlink.dump(links.list_addresses()))
    return [item.interface for item in found if item.index == index]


def overlap(found: list[links.Route], pods: IPv4Network, own: frozenset[int]) -> links.Route | None:
    """The route of others that a pod range collides with: into it, or to a network around it that is on a link itself.

    A wider route by way of a gateway does no harm: the range's own one is the longer match. own: indexes of our links.
    """
    for route in found:
        if route.output in own or route.is_ours:
            continue
        around = route.gateway is None and route.destination.prefixlen > 0 and pods.subnet_of(route.destination)
        if route.destination.subnet_of(pods) or around:
            return route
    return None
