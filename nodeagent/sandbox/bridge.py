"""The bridge that all pods of a node are on. By netlink.

Owns podplane0; never another link. Each step can be done again: what others have changed is mended. Blocks: for
threads. Fails with OSError.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from ipaddress import IPv4Interface, IPv4Network

from nodeagent.netlink import Socket
from nodeagent.sandbox import links, podlink, sysctl
from nodeagent.sandbox.ipam import gateway, hardware_address
from nodeagent.sandbox.podlink import Bridge
from nodeagent.sandbox.uplink import addresses

BRIDGE = "podplane0"


def put(netlink: Socket, found: Sequence[links.Link], cidr: IPv4Network, mtu: int) -> Bridge:
    """Make the bridge with the gateway's address, or mend it; pods' ends that have lost it are put back on it.

    found: all links, from a moment ago. mtu: what new pods may send. Pods that are there keep theirs: they learn a
    smaller one on the way, by ICMP.
    """
    own = IPv4Interface((gateway(str(cidr)), cidr.prefixlen))
    mac = hardware_address(own.ip)
    made = next((link for link in found if link.name == BRIDGE), None)
    if made is None:
        netlink.do(links.add_bridge(BRIDGE, mac, mtu))
        made = links.read_link(netlink.ask(links.get_link(BRIDGE)))
    if made.kind != "bridge":
        raise OSError(errno.EEXIST, f"the name {BRIDGE} belongs to a link that is not a bridge")
    if made.mtu != mtu or not made.up or made.mac != mac.hex(":"):
        netlink.do(links.set_link(BRIDGE, mac, mtu))
    _address(netlink, made.index, own)
    sysctl.write(f"net.ipv4.conf.{BRIDGE}.rp_filter", "1")  # pods send from their range only
    sysctl.write(f"net.ipv4.conf.{BRIDGE}.send_redirects", "0")
    podlink.rejoin(netlink, made.index, found)
    return Bridge(made.index, mtu)


def _address(netlink: Socket, index: int, own: IPv4Interface) -> None:
    present = addresses(netlink, index)
    if own not in present:
        netlink.do(links.put_address(index, own))
    for foreign in present:
        if foreign != own:
            netlink.do(links.delete_address(index, foreign))
