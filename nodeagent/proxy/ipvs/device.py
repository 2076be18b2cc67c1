"""The dummy device that has the service addresses, so that packets to them are the node's own and meet IPVS.

It stays down: an address makes its local route all the same, and nothing is ever sent by it. Its alias keeps what
must outlive the agent: what the nftables side looked like when it was right.
Owns the link podplane-ipvs0 whole, and no other. Blocks for microseconds an address: for threads. Fails with OSError.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection, Iterable, Mapping
from ipaddress import IPv4Address, IPv4Interface

from nodeagent import netlink
from nodeagent.netlink import NLM_F_CREATE, NLM_F_EXCL, NetlinkError, Request
from nodeagent.proxy.ipvs.plan import DEVICE, Addresses
from nodeagent.sandbox import links
from nodeagent.sandbox.rtnl import LINK, Message, encode, nest

NAME = DEVICE
_RTM_NEWLINK = 16
_IFA_LOCAL = 2
_INDEX_OFFSET, _ATTRIBUTES_OFFSET = 4, 8  # struct ifaddrmsg
_BATCH = 64


def find(connection: netlink.Socket) -> tuple[int, dict[str, str]] | None:
    """The device's index and what its alias keeps; None where there is no such device."""
    try:
        body = connection.ask(links.get_link(NAME))
    except NetlinkError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    words = Message(LINK, body).text("IFLA_IFALIAS").split()
    return links.read_index(body), dict(word.split("=", 1) for word in words if "=" in word)


def add(connection: netlink.Socket) -> None:
    info = ("IFLA_LINKINFO", nest(("IFLA_INFO_KIND", "dummy")))
    body = encode(LINK, {}, ("IFLA_IFNAME", NAME), info)
    connection.do(Request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"add dummy device {NAME}"))


def keep(connection: netlink.Socket, kept: Mapping[str, str]) -> None:
    """Write what find() gives back, at most 255 characters of it all."""
    alias = " ".join(f"{key}={value}" for key, value in kept.items())
    body = encode(LINK, {}, ("IFLA_IFNAME", NAME), ("IFLA_IFALIAS", alias))
    connection.do(Request(_RTM_NEWLINK, 0, body, f"set the alias of {NAME}"))


def delete(connection: netlink.Socket) -> None:
    connection.do(links.delete_link(NAME))


def addresses(connection: netlink.Socket, index: int) -> Addresses:
    """The node's. index: the device's. Taken apart here: pyroute2 takes ten times as long, and there may be 10,000."""
    ours: set[str] = set()
    others: set[str] = set()
    for body in connection.dump(links.list_addresses()):
        own = netlink.attributes(body, _ATTRIBUTES_OFFSET).get(_IFA_LOCAL)
        if own is not None and len(own) == 4:
            is_ours = int.from_bytes(body[_INDEX_OFFSET:_ATTRIBUTES_OFFSET], "little") == index
            (ours if is_ours else others).add(socket.inet_ntoa(own))
    return Addresses(frozenset(ours), frozenset(others))


def put(connection: netlink.Socket, index: int, wanted: Iterable[str]) -> dict[str, str]:
    """Add addresses; returns those that the kernel refuses, and its words."""
    return _each(connection, [(item, links.put_address(index, _interface(item))) for item in sorted(wanted)], ())


def take(connection: netlink.Socket, index: int, unwanted: Iterable[str]) -> dict[str, str]:
    """Remove addresses; one that is gone already is as it should be."""
    requests = [(item, links.delete_address(index, _interface(item))) for item in sorted(unwanted)]
    return _each(connection, requests, (errno.EADDRNOTAVAIL,))


def _interface(address: str) -> IPv4Interface:
    return IPv4Interface((IPv4Address(address), 32))


def _each(connection: netlink.Socket, requests: list[tuple[str, Request]], fine: Collection[int]) -> dict[str, str]:
    refused = {}
    for begin in range(0, len(requests), _BATCH):
        batch = requests[begin : begin + _BATCH]
        for (address, _), error in zip(batch, connection.attempt(*(item for _, item in batch)), strict=True):
            if error is not None and error.errno not in fine:
                refused[address] = str(error)
    return refused
