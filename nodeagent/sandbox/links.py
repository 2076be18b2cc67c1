"""The rtnetlink messages that the pod network is made of: links, addresses, routes.

Owns what they say; never sends anything. What every pod needs is encoded once, then patched or used again: rtnl.py
says why. Sources: rtnetlink(7), linux/if_link.h, linux/rtnetlink.h, linux/veth.h, linux/if_bridge.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from nodeagent.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Request, as_text, attributes
from nodeagent.sandbox.rtnl import ADDRESS, LINK, ROUTE, Message, Template, encode, nest

ROUTE_PROTOCOL = 112
"""Marks our routes in the kernel's table (rtm_protocol): we change and remove these and no others."""

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_IFF_UP = 1
_UP = {"flags": _IFF_UP, "change": _IFF_UP}
_IFA_F_NOPREFIXROUTE = 0x200
_RT_TABLE_MAIN, _RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK, _RTN_UNICAST = 254, 0, 253, 1
_RTNH_F_ONLINK = 4
_U32 = struct.Struct("=I")
_INDEX = struct.Struct("=4xi")
_IFINFO = struct.Struct("=BxxxiII")  # family, index, flags, change
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_GROUP = 1, 3, 4, 5, 10, 18, 27
_IFLA_INFO_KIND = 1
_WITHOUT_COUNTERS = 8
"""RTEXT_FILTER_SKIP_STATS: half of what the kernel would tell of each link."""
# Marks of the templates: values that no other part of a message has.
_MAC_MARK, _FD_MARK, _ADDRESS_MARK = b"\xa1\xa2\xa3\xa4\xa5\xa6", b"\xb1\xb2\xb3\x31", b"\xc1\xc2\xc3\xc4"
_GROUP_MARK = b"\xd1\xd2\xd3\xd4"


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface as the kernel describes it; peer and master are interface indexes, 0 for none."""

    index: int
    name: str
    kind: str
    up: bool
    mtu: int
    peer: int
    master: int
    group: int
    mac: str
    """In hex, with colons; "" where the link has none."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """What makes a VXLAN device: its network's number, where it sends from, its UDP port, whether it learns."""

    number: int
    local: IPv4Address
    port: int
    learning: bool


@dataclass(frozen=True, slots=True)
class Address:
    index: int
    interface: IPv4Interface
    scope: int


@dataclass(frozen=True, slots=True)
class Route:
    """A unicast route of the main table."""

    destination: IPv4Network
    gateway: IPv4Address | None
    output: int
    protocol: int

    @property
    def is_ours(self) -> bool:
        return self.protocol == ROUTE_PROTOCOL


def _mac(address: bytes) -> str:
    return address.hex(":")


@lru_cache(maxsize=16)
def get_link(name: str) -> Request:
    return Request(_RTM_GETLINK, 0, encode(LINK, {}, ("IFLA_IFNAME", name)), f"look up link {name}")


def list_links() -> Request:
    return Request(_RTM_GETLINK, 0, encode(LINK, {}, ("IFLA_EXT_MASK", _WITHOUT_COUNTERS)), "list links")


def add_bridge(name: str, mac: bytes, mtu: int) -> Request:
    info = ("IFLA_LINKINFO", nest(("IFLA_INFO_KIND", "bridge")))
    body = encode(LINK, _UP, ("IFLA_IFNAME", name), ("IFLA_ADDRESS", _mac(mac)), ("IFLA_MTU", mtu), info)
    return Request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"add bridge {name}")


def set_link(name: str, mac: bytes, mtu: int) -> Request:
    body = encode(LINK, _UP, ("IFLA_IFNAME", name), ("IFLA_ADDRESS", _mac(mac)), ("IFLA_MTU", mtu))
    return Request(_RTM_NEWLINK, 0, body, f"set MAC and MTU of {name}")


def add_vxlan(name: str, mac: bytes, mtu: int, tunnel: Tunnel) -> Request:
    data = nest(
        ("IFLA_VXLAN_ID", tunnel.number),
        ("IFLA_VXLAN_LOCAL", str(tunnel.local)),
        ("IFLA_VXLAN_PORT", tunnel.port),
        ("IFLA_VXLAN_LEARNING", int(tunnel.learning)),
    )
    info = ("IFLA_LINKINFO", nest(("IFLA_INFO_KIND", "vxlan"), ("IFLA_INFO_DATA", data)))
    body = encode(LINK, _UP, ("IFLA_IFNAME", name), ("IFLA_ADDRESS", _mac(mac)), ("IFLA_MTU", mtu), info)
    return Request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"add VXLAN {name}")


def add_veth(name: str, bridge: int, mtu: int, peer: str, mac: bytes, netns: int, group: int) -> Request:
    """Make a veth pair in one message: our end up, on the bridge and in a group, the peer in netns (a descriptor).

    The peer stays down: the kernel cannot open it before it has its other end (ENOTCONN).
    """
    body = _veth(len(name), bridge, mtu, peer).fill(name.encode(), mac, _U32.pack(netns), _U32.pack(group))
    return Request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"add veth {name} with peer {peer}")


@lru_cache(maxsize=16)
def _veth(length: int, bridge: int, mtu: int, peer: str) -> Template:
    name = "?" * length
    other = nest(
        ("IFLA_IFNAME", peer),
        ("IFLA_MTU", mtu),
        ("IFLA_ADDRESS", _mac(_MAC_MARK)),
        ("IFLA_NET_NS_FD", *_U32.unpack(_FD_MARK)),
    )
    data = ("IFLA_INFO_DATA", nest(("VETH_INFO_PEER", other)))
    group = ("IFLA_GROUP", *_U32.unpack(_GROUP_MARK))
    info = ("IFLA_LINKINFO", nest(("IFLA_INFO_KIND", "veth"), data))
    body = encode(LINK, _UP, ("IFLA_IFNAME", name), ("IFLA_MTU", mtu), ("IFLA_MASTER", bridge), group, info)
    return Template(body, name.encode(), _MAC_MARK, _FD_MARK, _GROUP_MARK)


def set_port(name: str, bridge: int, group: int) -> Request:
    """Put a link on the bridge, in a group, and up."""
    body = encode(LINK, _UP, ("IFLA_IFNAME", name), ("IFLA_MASTER", bridge), ("IFLA_GROUP", group))
    return Request(_RTM_NEWLINK, 0, body, f"put {name} on the bridge")


def hairpin(name: str) -> Request:
    """Let a bridge port send back where a frame came from: a pod that reaches itself through its service."""
    return Request(_RTM_NEWLINK, 0, _hairpin(len(name)).fill(name.encode()), f"set hairpin mode of {name}")


@lru_cache(maxsize=16)
def _hairpin(length: int) -> Template:
    name = "?" * length
    data = ("IFLA_INFO_SLAVE_DATA", nest(("IFLA_BRPORT_MODE", 1)))
    info = ("IFLA_LINKINFO", nest(("IFLA_INFO_SLAVE_KIND", "bridge"), data))
    return Template(encode(LINK, {}, ("IFLA_IFNAME", name), info), name.encode())


@lru_cache(maxsize=16)
def set_up(index: int) -> Request:
    return Request(_RTM_NEWLINK, 0, encode(LINK, {"index": index, **_UP}), f"set link {index} up")


def delete_link(name: str) -> Request:
    return Request(_RTM_DELLINK, 0, encode(LINK, {}, ("IFLA_IFNAME", name)), f"delete link {name}")


def _address(index: int, interface: IPv4Interface, flags: int = 0) -> bytes:
    return _address_template(index, interface.network.prefixlen, flags).fill(interface.ip.packed)


@lru_cache(maxsize=16)
def _address_template(index: int, length: int, flags: int) -> Template:
    own = socket.inet_ntoa(_ADDRESS_MARK)
    fields = {"family": socket.AF_INET, "prefixlen": length, "scope": _RT_SCOPE_UNIVERSE, "index": index}
    body = encode(ADDRESS, fields, ("IFA_LOCAL", own), ("IFA_ADDRESS", own), ("IFA_FLAGS", flags))
    return Template(body, _ADDRESS_MARK)


def put_address(index: int, interface: IPv4Interface, prefix_route: bool = True) -> Request:
    flags = 0 if prefix_route else _IFA_F_NOPREFIXROUTE
    body = _address(index, interface, flags)
    return Request(_RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body, f"put address {interface} on link {index}")


def delete_address(index: int, interface: IPv4Interface) -> Request:
    return Request(_RTM_DELADDR, 0, _address(index, interface), f"remove address {interface} of link {index}")


def list_addresses() -> Request:
    return Request(_RTM_GETADDR, 0, encode(ADDRESS, {"family": socket.AF_INET}), "list addresses")


def _route(
    destination: IPv4Network,
    gateway: IPv4Address | None,
    output: int | None,
    protocol: int = ROUTE_PROTOCOL,
    flags: int = 0,
) -> bytes:
    """The body of a route; without a gateway: to what is on the link itself."""
    fields = {
        "family": socket.AF_INET,
        "dst_len": destination.prefixlen,
        "table": _RT_TABLE_MAIN,
        "proto": protocol,
        "scope": _RT_SCOPE_LINK if gateway is None else _RT_SCOPE_UNIVERSE,
        "type": _RTN_UNICAST,
        "flags": flags,
    }
    attributes: list[tuple[str, object]] = []
    if destination.prefixlen:
        attributes.append(("RTA_DST", str(destination.network_address)))
    if gateway is not None:
        attributes.append(("RTA_GATEWAY", str(gateway)))
    if output is not None:
        attributes.append(("RTA_OIF", output))
    return encode(ROUTE, fields, *attributes)


@lru_cache(maxsize=64)
def put_route(
    destination: IPv4Network,
    gateway: IPv4Address | None,
    output: int | None = None,
    *,
    replace: bool = True,
    onlink: bool = False,
) -> Request:
    """Add a route; without a gateway: to what is on the link itself. replace: put it in place of one that is there.

    onlink: the gateway is on the link, whatever the link's addresses say.
    """
    asked = f"route {destination} " + (f"via {gateway}" if gateway else f"on link {output}")
    flags = NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL)
    return Request(_RTM_NEWROUTE, flags, _route(destination, gateway, output, flags=_RTNH_F_ONLINK * onlink), asked)


def delete_route(route: Route) -> Request:
    body = _route(route.destination, route.gateway, None, route.protocol)
    return Request(_RTM_DELROUTE, 0, body, f"remove route {route.destination} via {route.gateway}")


def list_routes() -> Request:
    return Request(_RTM_GETROUTE, 0, encode(ROUTE, {"family": socket.AF_INET}), "list routes")


def read_index(body: bytes) -> int:
    """The index of the link that a message is about, alone: struct ifinfomsg, ifi_index."""
    return int(_INDEX.unpack_from(body)[0])


def read_link(body: bytes) -> Link:
    """Decode a link by hand: 10 µs, where pyroute2 takes 200, and there is one for each pod at each look."""
    _, index, flags, _ = _IFINFO.unpack_from(body)
    told = attributes(body, _IFINFO.size)
    kind = attributes(told.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND, b"")
    return Link(
        index=index,
        name=as_text(told.get(_IFLA_IFNAME, b"")),
        kind=as_text(kind),
        up=bool(flags & _IFF_UP),
        mtu=_number(told, _IFLA_MTU),
        peer=_number(told, _IFLA_LINK),
        master=_number(told, _IFLA_MASTER),
        group=_number(told, _IFLA_GROUP),
        mac=told.get(_IFLA_ADDRESS, b"").hex(":"),
    )


def _number(told: Mapping[int, bytes], kind: int) -> int:
    return int(_U32.unpack(told[kind])[0]) if kind in told else 0


def read_tunnel(body: bytes) -> Tunnel:
    """What a VXLAN device is made of."""
    found, data = Message(LINK, body), ("IFLA_LINKINFO", "IFLA_INFO_DATA")
    return Tunnel(
        number=found.number(*data, "IFLA_VXLAN_ID"),
        local=IPv4Address(found.text(*data, "IFLA_VXLAN_LOCAL") or 0),
        port=found.number(*data, "IFLA_VXLAN_PORT"),
        learning=bool(found.number(*data, "IFLA_VXLAN_LEARNING")),
    )


def read_address(body: bytes) -> Address:
    found = Message(ADDRESS, body)
    own = found.text("IFA_LOCAL") or found.text("IFA_ADDRESS")
    interface = IPv4Interface((own, found.field("prefixlen")))
    return Address(found.field("index"), interface, found.field("scope"))


@lru_cache(maxsize=4096)
def read_route(body: bytes) -> Route | None:
    """Decode a route; None for what is not a unicast route of the main table.

    Each dump gives the routes to all other nodes again, with the same bytes: 0.1 ms a route for the first time only.
    """
    found = Message(ROUTE, body)
    if found.field("table") != _RT_TABLE_MAIN or found.field("type") != _RTN_UNICAST:
        return None
    gateway = found.text("RTA_GATEWAY")
    return Route(
        destination=IPv4Network((found.text("RTA_DST") or 0, found.field("dst_len"))),
        gateway=IPv4Address(gateway) if gateway else None,
        output=found.number("RTA_OIF"),
        protocol=found.field("proto"),
    )
