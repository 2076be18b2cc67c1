"""A pod's link to the node's network: a veth pair, its inner end with the pod's address and routes. All by netlink.

Owns the `pp…` links; never makes the bridge. Each step can be done again: what stands is verified and mended. Blocks
for a millisecond: for threads. Fails with OSError.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network

from nodeagent.netlink import NetlinkError, Socket
from nodeagent.sandbox import links
from nodeagent.sandbox.ipam import gateway, hardware_address
from nodeagent.sandbox.uplink import addresses

PREFIX = "pp"
_INSIDE = "eth0"


def host_link(pod_uid: str, attempt: int) -> str:
    """The name of a sandbox's host end: `pp` and 11 hex digits, within the kernel's 15 characters."""
    return PREFIX + hashlib.sha256(f"{pod_uid}_{attempt}".encode()).hexdigest()[:11]


@dataclass(frozen=True, slots=True)
class Bridge:
    """What pods are put on. index: the interface's; mtu: what pods may send."""

    index: int
    mtu: int


def attach(netlink: Socket, bridge: Bridge, name: str, netns: int, own: IPv4Interface) -> None:
    """Give the network namespace that the calling thread is in, and netns is a descriptor of, its eth0."""
    with Socket() as inside:
        _connect(netlink, bridge, name, netns, inside, own)
        _furnish(inside, own)


def _connect(netlink: Socket, bridge: Bridge, name: str, netns: int, inside: Socket, own: IPv4Interface) -> None:
    # The group is the pod's address: guard.py lets the port send as that alone.
    group = int(own.ip)
    pair = links.add_veth(name, bridge.index, bridge.mtu, _INSIDE, hardware_address(own.ip), netns, group)
    refused, ported = netlink.attempt(pair, links.hairpin(name))
    if refused is not None and refused.errno == errno.EEXIST:
        if _stands(netlink, name, inside, own):
            netlink.do(links.set_port(name, bridge.index, group), links.hairpin(name))
            return
        # Half-made, or of another make: both ends go with either.
        gone(netlink.attempt(links.delete_link(name)))
        gone(inside.attempt(links.delete_link(_INSIDE)))
        refused, ported = netlink.attempt(pair, links.hairpin(name))
    for error in (refused, ported):
        if error is not None:
            raise error


def _stands(netlink: Socket, name: str, inside: Socket, own: IPv4Interface) -> bool:
    """Whether the pair is there, is one pair, and carries no address but the pod's own."""
    try:
        outer = links.read_link(netlink.ask(links.get_link(name)))
        inner = links.read_link(inside.ask(links.get_link(_INSIDE)))
    except NetlinkError:
        return False
    paired = outer.peer == inner.index and inner.peer == outer.index
    return paired and set(addresses(inside, inner.index)) <= {own}


def _furnish(inside: Socket, own: IPv4Interface) -> None:
    index, via = links.read_index(inside.ask(links.get_link(_INSIDE))), gateway(str(own.network))
    inside.do(
        links.set_up(1),
        links.set_up(index),
        links.put_address(index, own, prefix_route=False),
        links.put_route(IPv4Network(via), None, index),
        links.put_route(IPv4Network("0.0.0.0/0"), via, index),
    )


def detach(name: str) -> None:
    """Remove a pair, wherever its other end is; nothing to do where it is gone.

    Blocks for some 40 ms where it is there, hence on a socket of its own.
    """
    with Socket() as netlink:
        gone(netlink.attempt(links.delete_link(name)))


def is_ours(link: links.Link) -> bool:
    """Whether a link is a pod's host end."""
    return link.kind == "veth" and link.name.startswith(PREFIX) and len(link.name) == len(PREFIX) + 11


def rejoin(netlink: Socket, bridge: int, found: Iterable[links.Link]) -> None:
    """Put the pods' ends back on a bridge that they have lost: a new one, where somebody took the old one away."""
    for link in found:
        if is_ours(link) and link.group and link.master != bridge:
            gone(netlink.attempt(links.set_port(link.name, bridge, link.group), links.hairpin(link.name)))


def gone(results: list[NetlinkError | None]) -> None:
    """Raise the first refusal that is not that the link is gone."""
    for error in results:
        if error is not None and error.errno != errno.ENODEV:
            raise error
