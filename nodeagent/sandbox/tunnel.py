"""The VXLAN device to nodes that are not on a link of ours. All by netlink, all from the list of nodes.

    route       <a node's range> via <its tunnel end> dev podplane-vxlan onlink      (network.py puts it)
    neighbour   <its tunnel end> → the MAC that follows from it                      nobody asks by ARP
    FDB         that MAC → the node's address                                        nothing is learned

Owns podplane-vxlan with all that is on it; never another link. Where a peer has moved, its entry is replaced; one that
somebody took away is put back. Blocks: for threads. Fails with OSError. Messages of neighbours are packed here: a node
may have thousands, and pyroute2 takes 0.1 ms to read each. Sources: linux/neighbour.h, linux/if_link.h.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from nodeagent.netlink import NLM_F_CREATE, NLM_F_REPLACE, Request, Socket, attribute, attributes
from nodeagent.sandbox import links
from nodeagent.sandbox.ipam import hardware_address
from nodeagent.sandbox.peers import OVERHEAD, Peers, tunnel_end
from nodeagent.sandbox.podlink import gone
from nodeagent.sandbox.uplink import Uplink, addresses

DEVICE = "podplane-vxlan"
VNI = 112
"""The network's number in each packet; ours are told from other VXLANs of the same port by it."""

_NEW, _DELETE, _GET = 28, 29, 30
_NDMSG = struct.Struct("=BxxxiHBB")  # family, ifindex, state, flags, type
_IFINFO = struct.Struct("=BxHiII")
_AF_INET, _AF_BRIDGE = 2, 7
_NUD_PERMANENT, _NTF_SELF = 0x80, 0x02
_NDA_DST, _NDA_LLADDR = 1, 2

Entry = tuple[bytes, bytes]
"""(MAC, IPv4 address): of the FDB, MAC → address; of a neighbour, address → MAC."""


@dataclass(frozen=True, slots=True)
class Table:
    """One of the two tables that lead through the tunnel."""

    family: int
    flags: int
    name: str


_FDB, _NEIGHBOURS = Table(_AF_BRIDGE, _NTF_SELF, "FDB entry"), Table(_AF_INET, 0, "neighbour")


def put(netlink: Socket, own: IPv4Network, uplink: Uplink, port: int, peers: Peers) -> int:
    """Make the device, or mend it, with entries for these peers and no others; returns its index."""
    index = _device(netlink, own, uplink, port)
    ends = {cidr: tunnel_end(cidr) for cidr in peers}
    neighbours = {end.packed: hardware_address(end) for end in ends.values()}
    forwarding = {hardware_address(end): peers[cidr].packed for cidr, end in ends.items()}
    _follow(
        netlink, index, _NEIGHBOURS, neighbours, {address: mac for mac, address in _list(netlink, index, _NEIGHBOURS)}
    )
    _follow(netlink, index, _FDB, forwarding, dict(_list(netlink, index, _FDB)))
    return index


def remove(netlink: Socket, found: Iterable[links.Link]) -> None:
    """Take the device away; nothing to do where it is not there or is none of ours. found: all links."""
    for link in found:
        if (link.name, link.kind) == (DEVICE, "vxlan"):
            gone(netlink.attempt(links.delete_link(DEVICE)))


def _device(netlink: Socket, own: IPv4Network, uplink: Uplink, port: int) -> int:
    end = IPv4Interface((tunnel_end(own), 32))
    mac, mtu = hardware_address(end.ip), uplink.mtu - OVERHEAD
    wanted = links.Tunnel(VNI, uplink.address, port, learning=False)
    request = links.add_vxlan(DEVICE, mac, mtu, wanted)
    [refused] = netlink.attempt(request)
    if refused is not None and refused.errno != errno.EEXIST:
        raise refused
    body = netlink.ask(links.get_link(DEVICE))
    link = links.read_link(body)
    if link.kind != "vxlan":
        raise OSError(errno.EEXIST, f"the name {DEVICE} belongs to a link that is no VXLAN")
    if links.read_tunnel(body) != wanted:  # none of it can be changed: a new one, then
        netlink.do(links.delete_link(DEVICE), request)
        link = links.read_link(netlink.ask(links.get_link(DEVICE)))
    if link.mtu != mtu or link.mac != mac.hex(":") or not link.up:
        netlink.do(links.set_link(DEVICE, mac, mtu))
    present = addresses(netlink, link.index)
    if end not in present:
        netlink.do(links.put_address(link.index, end))
    for foreign in present:
        if foreign != end:
            netlink.do(links.delete_address(link.index, foreign))
    return link.index


def _follow(
    netlink: Socket, index: int, table: Table, wanted: Mapping[bytes, bytes], present: Mapping[bytes, bytes]
) -> None:
    for key, value in present.items():
        if key not in wanted:
            [error] = netlink.attempt(_request(_DELETE, 0, index, table, key, value))
            if error is not None and error.errno != errno.ENOENT:
                raise error
    for key, value in wanted.items():
        if present.get(key) != value:
            netlink.do(_request(_NEW, NLM_F_CREATE | NLM_F_REPLACE, index, table, key, value))


def _request(kind: int, flags: int, index: int, table: Table, key: bytes, value: bytes) -> Request:
    mac, address = (key, value) if table is _FDB else (value, key)
    body = _NDMSG.pack(table.family, index, _NUD_PERMANENT, table.flags, 0)
    body += attribute(_NDA_DST, address) + attribute(_NDA_LLADDR, mac)
    verb = "put" if kind == _NEW else "remove"
    return Request(kind, flags, body, f"{verb} {table.name} {mac.hex(':')} {IPv4Address(address)} of {DEVICE}")


def _list(netlink: Socket, index: int, table: Table) -> list[Entry]:
    """What is permanent on the device, and what was learned or failed: all but multicast's."""
    # The FDB takes the index from this header and gives that device's alone; neighbours are told apart below.
    body = _IFINFO.pack(table.family, 0, index, 0, 0) if table is _FDB else _NDMSG.pack(table.family, 0, 0, 0, 0)
    found = []
    for message in netlink.dump(Request(_GET, 0, body, f"list the {table.name}s of {DEVICE}")):
        _, at, _, _, _ = _NDMSG.unpack_from(message)
        told = attributes(message, _NDMSG.size)
        address, mac = told.get(_NDA_DST, b""), told.get(_NDA_LLADDR, bytes(6))
        if at == index and len(address) == 4 and not mac[0] & 1:
            found.append((mac, address))
    return found
