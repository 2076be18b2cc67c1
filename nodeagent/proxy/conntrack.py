"""Forgetting connections that rules have already decided: UDP flows to an endpoint that is gone, by netlink.

A flow that keeps its ports keeps its translation for as long as it talks: without this, a UDP client would send to a
pod that no longer exists for ever. TCP needs none of it: its connection ends. Owns no state. Fails with OSError.
Source: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address

from nodeagent import netlink
from nodeagent.proxy.services import HostPort, ServicePort

_NETLINK_NETFILTER = 12
_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2
_HEADER = struct.pack("!BBH", 2, 0, 0)  # struct nfgenmsg: AF_INET
_TUPLE_ORIG, _TUPLE_REPLY, _ID = 1, 2, 12
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP_SRC, _IP_DST = 1, 2
_PROTO_NUM, _PROTO_SRC_PORT, _PROTO_DST_PORT = 1, 2, 3
_UDP = 17


@dataclass(frozen=True, slots=True)
class Stale:
    """Flows to a frontend (address None: any of the node) that somebody else answers than one of `kept`."""

    address: str | None
    port: int
    kept: frozenset[tuple[str, int]]


_Answers = dict[tuple[str | None, int], frozenset[tuple[str, int]]]
"""Who answers where: by address (None: any of the node's) and port."""


def stale(before: Collection[ServicePort], after: Collection[ServicePort]) -> frozenset[Stale]:
    """What has to be forgotten when service ports change from before (none: unknown) to after."""
    return _differing(_answers(before), _answers(after))


def stale_host_ports(before: Collection[HostPort], after: Collection[HostPort]) -> frozenset[Stale]:
    """What has to be forgotten when host ports change."""
    return _differing(_host_answers(before), _host_answers(after))


def _differing(before: _Answers, after: _Answers) -> frozenset[Stale]:
    if before == after:
        return frozenset()
    ended = dict.fromkeys(before, frozenset[tuple[str, int]]())
    return frozenset(
        Stale(*front, kept) for front, kept in {**ended, **after}.items() if before.get(front) != after.get(front)
    )


def _answers(ports: Collection[ServicePort]) -> _Answers:
    found: _Answers = {}
    for port in ports:
        if port.protocol == "udp":
            kept = frozenset((end.address, end.port) for end in port.reachable)
            found |= {(address, port.port): kept for address in (port.cluster_ip, *port.load_balancer_ips)}
            if port.node_port:
                found[None, port.node_port] = kept
    return found


def _host_answers(host_ports: Collection[HostPort]) -> _Answers:
    return {
        (item.address or None, item.port): frozenset({(item.target.address, item.target.port)})
        for item in host_ports
        if item.protocol == "udp"
    }


def forget(wanted: Collection[Stale]) -> int:
    """Delete the flows that any of wanted describes; returns how many. Blocks: some milliseconds per thousand flows."""
    index: dict[int, list[Stale]] = {}
    for item in wanted:
        index.setdefault(item.port, []).append(item)
    deleted = 0
    with netlink.Socket(_NETLINK_NETFILTER) as connection:
        for body in connection.dump(netlink.Request(_GET, 0, _HEADER, "list tracked connections")):
            found = netlink.attributes(body, 4)
            if _matches(found, index):
                key = netlink.attribute(_TUPLE_ORIG | 0x8000, found[_TUPLE_ORIG]) + netlink.attribute(_ID, found[_ID])
                request = netlink.Request(_DELETE, 0, _HEADER + key, "forget a UDP flow")
                # It may have ended by itself since: then it is as it should be.
                deleted += sum(error is None for error in connection.attempt(request))
    return deleted


def _matches(found: dict[int, bytes], index: dict[int, list[Stale]]) -> bool:
    asked = netlink.attributes(found.get(_TUPLE_ORIG, b""))
    protocol = netlink.attributes(asked.get(_TUPLE_PROTO, b""))
    if protocol.get(_PROTO_NUM) != bytes([_UDP]):
        return False
    port = int.from_bytes(protocol[_PROTO_DST_PORT], "big")
    if port not in index:
        return False
    target = str(IPv4Address(netlink.attributes(asked[_TUPLE_IP])[_IP_DST]))
    answered = _source(found[_TUPLE_REPLY])
    return any(_is_stale(item, target, answered) for item in index[port])


def _is_stale(item: Stale, target: str, answered: tuple[str, int]) -> bool:
    if answered in item.kept or item.address not in (None, target):
        return False
    # Where nobody answers any more, and for a node's port, a flow that was never ours must be let alone.
    return answered != (target, item.port) or (item.address is not None and bool(item.kept))


def _source(tuple_: bytes) -> tuple[str, int]:
    parts = netlink.attributes(tuple_)
    address = IPv4Address(netlink.attributes(parts[_TUPLE_IP])[_IP_SRC])
    return str(address), int.from_bytes(netlink.attributes(parts[_TUPLE_PROTO])[_PROTO_SRC_PORT], "big")
