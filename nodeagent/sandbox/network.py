"""The node's pod network: one bridge, a veth pair for each pod, routes to the other nodes' pods. All by netlink.

    pod eth0 (10.x.y.z/24, everything via the gateway) ══ ppXXXXXXXXXXX ── podplane0 (10.x.y.1) ── routing ── uplink

A pod sends even to its neighbours through the gateway (its address has no route for the range): service rules then
see both directions of every connection without the br_netfilter module.

Owns podplane0, the `pp…` links and the routes of protocol 112; never touches another link, address or route. Rules
are the proxy's. Each step can be done again: what stands is verified and mended. Failures: `problem` says why pods
cannot have a network now; attach raises SandboxFailure.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from nodeagent.netlink import NetlinkError, Socket
from nodeagent.sandbox import links, sysctl
from nodeagent.sandbox.failure import SandboxFailure
from nodeagent.sandbox.ipam import gateway

log = logging.getLogger(__name__)

BRIDGE = "podplane0"
_INSIDE = "eth0"
_SETTINGS = {
    "net.ipv4.ip_forward": "1",
    # A pod reaches its neighbour by way of us: no mistake to correct. Other interfaces keep their own setting, which
    # the kernel joins with this one by "or".
    "net.ipv4.conf.all.send_redirects": "0",
}


def host_link(pod_uid: str, attempt: int) -> str:
    """The name of a sandbox's host end: `pp` and 11 hex digits, within the kernel's 15 characters."""
    return "pp" + hashlib.sha256(f"{pod_uid}_{attempt}".encode()).hexdigest()[:11]


@dataclass(frozen=True, slots=True)
class Uplink:
    """How the node reaches the others."""

    name: str
    address: IPv4Address
    mtu: int


class Network:
    """The pod network of the namespace that open() ran in. `attach` and `detach` block for a millisecond: threads."""

    def __init__(self, netlink: Socket, uplink: Uplink, saved: Path) -> None:
        self.uplink = uplink
        self.problem: str | None = "the control plane has not given this node a pod range yet"
        self.route_problems: Mapping[str, str] = {}
        self._netlink = netlink
        self._saved = saved
        self._cidr: IPv4Network | None = None
        self._bridge = 0

    @classmethod
    async def open(cls, run: Path, node_ip: str | None = None) -> Network:
        """Open the netlink socket and find the uplink. Raises SandboxFailure where the node has none.

        run: where the settings that cleanup() gives back are kept. node_ip: the address that the node is known by.
        """
        return await asyncio.to_thread(cls._open, run, node_ip)

    @classmethod
    def _open(cls, run: Path, node_ip: str | None) -> Network:
        netlink = Socket()
        try:
            return cls(netlink, find_uplink(netlink, node_ip), run / "network.json")
        except BaseException:
            netlink.close()
            raise

    def close(self) -> None:
        """Let go of the socket. The network stays as it is."""
        self._netlink.close()

    async def configure(self, pod_cidr: str, node_routes: Mapping[str, str], cluster_cidr: str) -> None:
        """Make the bridge, forwarding and the routes as given; what cannot be done is in `problem`.

        node_routes: other nodes' pod ranges → their InternalIPs. Never raises for what the kernel refuses.
        """
        self.problem = await asyncio.to_thread(self._configure, pod_cidr, cluster_cidr)
        await self.set_routes(node_routes)

    def _configure(self, pod_cidr: str, cluster_cidr: str) -> str | None:
        try:
            cidr = IPv4Network(pod_cidr)
            if not cidr.subnet_of(IPv4Network(cluster_cidr)):
                return f"the node's pod range {pod_cidr} is not within the cluster's {cluster_cidr}"
            if self.uplink.address in cidr:
                return f"the node's pod range {pod_cidr} holds the node's own address {self.uplink.address}"
            self._forward()
            self._bridge = self._make_bridge(cidr)
            self._cidr = cidr
        except (OSError, ValueError) as error:
            return f"cannot set up the pod network: {error}"
        return None

    def _forward(self) -> None:
        sysctl.save(self._saved, _SETTINGS)
        for name, value in _SETTINGS.items():
            sysctl.write(name, value)

    def _make_bridge(self, cidr: IPv4Network) -> int:
        own = IPv4Interface((gateway(str(cidr)), cidr.prefixlen))
        mac = links.hardware_address(own.ip)
        [refused] = self._netlink.attempt(links.add_bridge(BRIDGE, mac, self.uplink.mtu))
        if refused is not None and refused.errno != errno.EEXIST:
            raise refused
        bridge = links.read_link(self._netlink.ask(links.get_link(BRIDGE)))
        if bridge.kind != "bridge":
            raise OSError(errno.EEXIST, f"the name {BRIDGE} belongs to a link that is not a bridge")
        if refused is not None:
            self._netlink.do(links.set_link(BRIDGE, mac, self.uplink.mtu))
        self._netlink.do(links.put_address(bridge.index, own))
        for foreign in _addresses(self._netlink, bridge.index):
            if foreign != own:
                self._netlink.do(links.delete_address(bridge.index, foreign))
        sysctl.write(f"net.ipv4.conf.{BRIDGE}.rp_filter", "1")  # pods send from their range only
        sysctl.write(f"net.ipv4.conf.{BRIDGE}.send_redirects", "0")
        return bridge.index

    async def set_routes(self, node_routes: Mapping[str, str]) -> None:
        """Route other nodes' pod ranges to their InternalIPs, and no longer those that are not given.

        A route that the kernel refuses is kept in `route_problems` and logged; it takes nothing from the others.
        """
        try:
            self.route_problems = await asyncio.to_thread(self._set_routes, node_routes)
        except (OSError, ValueError) as error:
            self.route_problems = {"all": f"cannot set the routes to other nodes: {error}"}
        for problem in self.route_problems.values():
            log.warning("cannot reach the pods of another node: %s", problem)

    def _set_routes(self, node_routes: Mapping[str, str]) -> dict[str, str]:
        wanted = {IPv4Network(cidr): IPv4Address(hop) for cidr, hop in node_routes.items()}
        if self._cidr is not None:
            wanted.pop(self._cidr, None)
        present = {route.destination: route for route in self._own_routes()}
        for destination, route in present.items():
            if destination not in wanted:
                self._delete_route(route)
        problems = {}
        for cidr, hop in wanted.items():
            if cidr not in present or present[cidr].gateway != hop:
                # Replaces nothing but our own: somebody else's route to the same range is a problem to be told.
                [error] = self._netlink.attempt(links.put_route(cidr, hop, replace=cidr in present))
                if error is not None:
                    problems[str(cidr)] = str(error)
        return problems

    def _own_routes(self) -> list[links.Route]:
        found = map(links.read_route, self._netlink.dump(links.list_routes()))
        return [route for route in found if route is not None and route.protocol == links.ROUTE_PROTOCOL]

    def _delete_route(self, route: links.Route) -> None:
        [error] = self._netlink.attempt(links.delete_route(route))
        if error is not None and error.errno != errno.ESRCH:
            raise error

    def attach(self, netns: int, pod_uid: str, attempt: int, address: str) -> None:
        """Give the pod's network namespace its eth0. Blocks for about a millisecond.

        The calling thread is in that namespace and netns is a descriptor of it. Raises SandboxFailure.
        """
        problem, cidr = self.problem, self._cidr  # another thread may configure the network meanwhile
        if problem is not None or cidr is None:
            raise SandboxFailure(f"cannot attach the pod to the network: {problem}")
        name, own = host_link(pod_uid, attempt), IPv4Interface((address, cidr.prefixlen))
        try:
            with Socket() as inside:
                self._connect(name, netns, inside, own)
                self._furnish(inside, own, gateway(str(cidr)))
        except OSError as error:
            raise SandboxFailure(f"cannot attach the pod to the network: {error}") from error

    def _connect(self, name: str, netns: int, inside: Socket, own: IPv4Interface) -> None:
        mac = links.hardware_address(own.ip)
        pair = links.add_veth(name, self._bridge, self.uplink.mtu, _INSIDE, mac, netns)
        refused, ported = self._netlink.attempt(pair, links.hairpin(name))
        if refused is not None and refused.errno == errno.EEXIST:
            if self._stands(name, inside, own):
                self._netlink.do(links.set_port(name, self._bridge), links.hairpin(name))
                return
            # Half-made, or of another make: both ends go with either.
            _gone(self._netlink.attempt(links.delete_link(name)))
            _gone(inside.attempt(links.delete_link(_INSIDE)))
            refused, ported = self._netlink.attempt(pair, links.hairpin(name))
        for error in (refused, ported):
            if error is not None:
                raise error

    def _stands(self, name: str, inside: Socket, own: IPv4Interface) -> bool:
        """Whether the pair is there, is one pair, and carries no address but the pod's own."""
        try:
            outer = links.read_link(self._netlink.ask(links.get_link(name)))
            inner = links.read_link(inside.ask(links.get_link(_INSIDE)))
        except NetlinkError:
            return False
        paired = outer.peer == inner.index and inner.peer == outer.index
        return paired and set(_addresses(inside, inner.index)) <= {own}

    def _furnish(self, inside: Socket, own: IPv4Interface, via: IPv4Address) -> None:
        index = links.read_index(inside.ask(links.get_link(_INSIDE)))
        inside.do(
            links.set_up(1),
            links.set_up(index),
            links.put_address(index, own, prefix_route=False),
            links.put_route(IPv4Network(via), None, index),
            links.put_route(IPv4Network("0.0.0.0/0"), via, index),
        )

    def detach(self, pod_uid: str, attempt: int) -> None:
        """Remove the pod's pair, wherever its other end is; nothing to do where it is gone. Raises OSError.

        Blocks for some 40 ms where it is there, hence on a socket of its own.
        """
        with Socket() as netlink:
            _gone(netlink.attempt(links.delete_link(host_link(pod_uid, attempt))))

    async def cleanup(self) -> None:
        """Remove the bridge, every pair on it and every route of ours, and give forwarding back as it was found."""
        await asyncio.to_thread(self._cleanup)

    def _cleanup(self) -> None:
        for route in self._own_routes():
            self._delete_route(route)
        found = [links.read_link(body) for body in self._netlink.dump(links.list_links())]
        bridges = {link.index for link in found if link.name == BRIDGE and link.kind == "bridge"}
        for link in found:
            if link.kind == "veth" and link.master in bridges and link.name.startswith("pp"):
                _gone(self._netlink.attempt(links.delete_link(link.name)))
        if bridges:
            _gone(self._netlink.attempt(links.delete_link(BRIDGE)))
        sysctl.restore(self._saved)
        self.problem, self._cidr, self._bridge = "the pod network was removed", None, 0


def find_uplink(netlink: Socket, node_ip: str | None = None) -> Uplink:
    """Find the interface that holds node_ip; without one, that of the default route, or else the first with an address.

    Raises SandboxFailure.
    """
    found = {link.index: link for link in map(links.read_link, netlink.dump(links.list_links()))}
    addresses = [links.read_address(body) for body in netlink.dump(links.list_addresses())]
    usable = [item for item in addresses if item.scope == 0 and found[item.index].name != BRIDGE]
    if node_ip is not None:
        usable = [item for item in usable if item.interface.ip == IPv4Address(node_ip)]
    else:
        routes = [route for body in netlink.dump(links.list_routes()) if (route := links.read_route(body))]
        default = next((route for route in routes if route.destination.prefixlen == 0), None)
        if default is not None:
            usable = [item for item in usable if item.index == default.output] or usable
    if not usable:
        wanted = f"the address {node_ip}" if node_ip else "an IPv4 address"
        raise SandboxFailure(f"cannot find the node's uplink: no interface has {wanted}")
    chosen = usable[0]
    link = found[chosen.index]
    return Uplink(link.name, chosen.interface.ip, link.mtu)


def _addresses(netlink: Socket, index: int) -> list[IPv4Interface]:
    found = map(links.read_address, netlink.dump(links.list_addresses()))
    return [item.interface for item in found if item.index == index]


def _gone(results: list[NetlinkError | None]) -> None:
    for error in results:
        if error is not None and error.errno != errno.ENODEV:
            raise error
