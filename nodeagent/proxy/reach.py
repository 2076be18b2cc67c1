"""Whether the node's routes lead to endpoints on other nodes: the link behind the rules.

An address of the pods' range must be led by a route of a narrower one, which the pod network puts for each node; the
default route would take it out of the cluster. Asks the kernel, never changes it. Blocks for microseconds an address:
for threads. Fails with OSError. Source: linux/rtnetlink.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from nodeagent import netlink

_GETROUTE = 26
_DESTINATION = 1
_FIB_MATCH = 0x2000
_HEADER = struct.Struct("=8BI")  # struct rtmsg
_UNICAST, _LOCAL = 1, 2
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL)


def unreachable(addresses: Iterable[str], cluster: str) -> dict[str, str]:
    """What is wrong with the way to each that has none, in words. cluster: the range of all pods."""
    pods = IPv4Network(cluster)
    with netlink.Socket() as connection:
        found = {address: _problem(connection, address, pods) for address in addresses}
    return {address: problem for address, problem in found.items() if problem}


def _problem(connection: netlink.Socket, address: str, pods: IPv4Network) -> str:
    body = _HEADER.pack(socket.AF_INET, 32, 0, 0, 0, 0, 0, 0, _FIB_MATCH)
    body += netlink.attribute(_DESTINATION, socket.inet_aton(address))
    try:
        answer = connection.ask(netlink.Request(_GETROUTE, 0, body, f"ask for the route to {address}"))
    except netlink.NetlinkError as error:
        if error.errno in _NO_ROUTE:
            return "no route leads to it"
        raise
    _, length, _, _, _, _, _, kind, _ = _HEADER.unpack_from(answer)
    if kind not in (_UNICAST, _LOCAL):
        return "its route lets nothing pass"
    if IPv4Address(address) in pods and length <= pods.prefixlen:
        return "no route of the pod network leads to it"
    return ""
