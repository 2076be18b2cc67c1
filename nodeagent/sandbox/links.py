"""The rtnetlink messages that the pod network is made of: links, addresses, routes. Encoding and decoding only.

Never sends anything. Sources: rtnetlink(7), linux/if_link.h, linux/rtnetlink.h, linux/veth.h, linux/if_bridge.h.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from nodeagent.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Request,
    address,
    as_text,
    as_u32,
    attribute,
    attributes,
    nested,
    text,
    u8,
    u32,
)

ROUTE_PROTOCOL = 112
"""Marks our routes in the kernel's table (rtm_protocol): we change and remove these and no others."""

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_IFF_UP = 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_LINKINFO, _IFLA_NET_NS_FD = 18, 28
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_INFO_PEER = 1
_BRPORT_MODE = 4
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_NOPREFIXROUTE = 0x200
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC = 1, 4, 5, 7
_RT_TABLE_MAIN, _RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK, _RTN_UNICAST = 254, 0, 253, 1
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")


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
    mac: bytes


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
    source: IPv4Address | None
    protocol: int


def hardware_address(owner: IPv4Address) -> bytes:
    """A MAC that follows from the address: a neighbour's cache stays right when the address moves to a new pod."""
    return b"\x0a\x58" + owner.packed


def _link(index: int = 0, up: bool = False) -> bytes:
    return _LINK.pack(socket.AF_UNSPEC, 0, index, _IFF_UP * up, _IFF_UP * up)


def get_link(name: str) -> Request:
    return Request(_RTM_GETLINK, 0, _link() + text(_IFLA_IFNAME, name), f"look up link {name}")


def list_links() -> Request:
    return Request(_RTM_GETLINK, 0, _link(), "list links")


def add_bridge(name: str, mac: bytes, mtu: int) -> Request:
    info = nested(_IFLA_LINKINFO, text(_INFO_KIND, "bridge"))
    body = _link(up=True) + text(_IFLA_IFNAME, name) + attribute(_IFLA_ADDRESS, mac) + u32(_IFLA_MTU, mtu) + info
    return Request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"add bridge {name}")


def set_link(name: str, mac: bytes, mtu: int) -> Request:
    body = _link(up=True) + text(_IFLA_IFNAME, name) + attribute(_IFLA_ADDRESS, mac) + u32(_IFLA_MTU, mtu)
    return Request(_RTM_NEWLINK, 0, body, f"set MAC and MTU of {name}")


def add_veth(name: str, bridge: int, mtu: int, peer: str, mac: bytes, netns: int) -> Request:
    """Make a veth pair in one message: our end up and on the bridge, the peer in netns (a descriptor).

    The peer stays down: the kernel cannot open it before it has its other end (ENOTCONN).
    """
    other = (
        _link()
        + text(_IFLA_IFNAME, peer)
        + u32(_IFLA_MTU, mtu)
        + attribute(_IFLA_ADDRESS, mac)
        + u32(_IFLA_NET_NS_FD, netns)
    )
    data = nested(_INFO_DATA, attribute(_VETH_INFO_PEER, other))
    body = (
        _link(up=True)
        + text(_IFLA_IFNAME, name)
        + u32(_IFLA_MTU, mtu)
        + u32(_IFLA_MASTER, bridge)
        + nested(_IFLA_LINKINFO, text(_INFO_KIND, "veth"), data)
    )
    return Request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"add veth {name} with peer {peer}")


def set_port(name: str, bridge: int) -> Request:
    """Put a link on the bridge and up."""
    body = _link(up=True) + text(_IFLA_IFNAME, name) + u32(_IFLA_MASTER, bridge)
    return Request(_RTM_NEWLINK, 0, body, f"put {name} on the bridge")


def hairpin(name: str) -> Request:
    """Let a bridge port send back where a frame came from: a pod that reaches itself through its service."""
    data = nested(_INFO_SLAVE_DATA, u8(_BRPORT_MODE, 1))
    body = _link() + text(_IFLA_IFNAME, name) + nested(_IFLA_LINKINFO, text(_INFO_SLAVE_KIND, "bridge"), data)
    return Request(_RTM_NEWLINK, 0, body, f"set hairpin mode of {name}")


def set_up(index: int) -> Request:
    return Request(_RTM_NEWLINK, 0, _link(index, up=True), f"set link {index} up")


def delete_link(name: str) -> Request:
    return Request(_RTM_DELLINK, 0, _link() + text(_IFLA_IFNAME, name), f"delete link {name}")


def _address(index: int, interface: IPv4Interface, flags: int = 0) -> bytes:
    head = _ADDRESS.pack(socket.AF_INET, interface.network.prefixlen, 0, _RT_SCOPE_UNIVERSE, index)
    own = str(interface.ip)
    return head + address(_IFA_LOCAL, own) + address(_IFA_ADDRESS, own) + u32(_IFA_FLAGS, flags)


def put_address(index: int, interface: IPv4Interface, prefix_route: bool = True) -> Request:
    flags = 0 if prefix_route else _IFA_F_NOPREFIXROUTE
    body = _address(index, interface, flags)
    return Request(_RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body, f"put address {interface} on link {index}")


def delete_address(index: int, interface: IPv4Interface) -> Request:
    return Request(_RTM_DELADDR, 0, _address(index, interface), f"remove address {interface} of link {index}")


def list_addresses() -> Request:
    return Request(_RTM_GETADDR, 0, _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0), "list addresses")


def _route(destination: IPv4Network, scope: int, protocol: int = ROUTE_PROTOCOL) -> bytes:
    length = destination.prefixlen
    head = _ROUTE.pack(socket.AF_INET, length, 0, 0, _RT_TABLE_MAIN, protocol, scope, _RTN_UNICAST, 0)
    return head + (address(_RTA_DST, str(destination.network_address)) if length else b"")


def put_route(
    destination: IPv4Network, gateway: IPv4Address | None, output: int | None = None, *, replace: bool = True
) -> Request:
    """Add a route; without a gateway: to what is on the link itself. replace: put it in place of one that is there."""
    body = _route(destination, _RT_SCOPE_LINK if gateway is None else _RT_SCOPE_UNIVERSE)
    body += b"" if gateway is None else address(_RTA_GATEWAY, str(gateway))
    body += b"" if output is None else u32(_RTA_OIF, output)
    asked = f"route {destination} " + (f"via {gateway}" if gateway else f"on link {output}")
    return Request(_RTM_NEWROUTE, NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL), body, asked)


def delete_route(route: Route) -> Request:
    body = _route(route.destination, _RT_SCOPE_UNIVERSE if route.gateway else _RT_SCOPE_LINK, route.protocol)
    body += address(_RTA_GATEWAY, str(route.gateway)) if route.gateway else b""
    return Request(_RTM_DELROUTE, 0, body, f"remove route {route.destination} via {route.gateway}")


def list_routes() -> Request:
    return Request(_RTM_GETROUTE, 0, _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0), "list routes")


def read_link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = attributes(body, _LINK.size)
    info = attributes(found.get(_IFLA_LINKINFO, b""))
    return Link(
        index=index,
        name=as_text(found.get(_IFLA_IFNAME, b"")),
        kind=as_text(info.get(_INFO_KIND, b"")),
        up=bool(flags & _IFF_UP),
        mtu=as_u32(found.get(_IFLA_MTU, b"")),
        peer=as_u32(found.get(_IFLA_LINK, b"")),
        master=as_u32(found.get(_IFLA_MASTER, b"")),
        mac=found.get(_IFLA_ADDRESS, b""),
    )


def read_address(body: bytes) -> Address:
    _, length, _, scope, index = _ADDRESS.unpack_from(body)
    found = attributes(body, _ADDRESS.size)
    own = found.get(_IFA_LOCAL) or found[_IFA_ADDRESS]
    return Address(index, IPv4Interface((own, length)), scope)


def read_route(body: bytes) -> Route | None:
    """Decode a route; None for what is not a unicast route of the main table."""
    _, length, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(body)
    if table != _RT_TABLE_MAIN or kind != _RTN_UNICAST:
        return None
    found = attributes(body, _ROUTE.size)
    return Route(
        destination=IPv4Network((found.get(_RTA_DST, bytes(4)), length)),
        gateway=IPv4Address(found[_RTA_GATEWAY]) if _RTA_GATEWAY in found else None,
        output=as_u32(found.get(_RTA_OIF, b"")),
        source=IPv4Address(found[_RTA_PREFSRC]) if _RTA_PREFSRC in found else None,
        protocol=protocol,
    )
