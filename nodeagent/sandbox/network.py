"""The node's pod network: one bridge, a veth pair for each pod, routes to the other nodes' pods. All by netlink.

    pod eth0 (10.x.y.z/24, everything via the gateway) ══ ppXXXXXXXXXXX ── podplane0 (10.x.y.1) ── routing ── uplink

A pod sends even to its neighbours through the gateway (its address has no route for the range): service rules then
see both directions of every connection without the br_netfilter module.

Owns podplane0, the `pp…` links (podlink.py), the routes of protocol 112 and the nftables tables of guard.py; never
touches another link, address, route or rule. Services are the proxy's. Each step can be done again: what stands is
verified and mended, by keep(). Failures: `problem` says why pods cannot have a network now; attach raises
SandboxFailure.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from nodeagent.netlink import Socket
from nodeagent.sandbox import guard, links, podlink, sysctl
from nodeagent.sandbox.failure import SandboxFailure
from nodeagent.sandbox.guard import CLOSED, Closed
from nodeagent.sandbox.ipam import gateway, hardware_address
from nodeagent.sandbox.nft import GuardRules
from nodeagent.sandbox.podlink import Bridge, gone, host_link
from nodeagent.sandbox.uplink import Uplink, addresses, find_uplink, overlap, routes

__all__ = ["BRIDGE", "Closed", "Network", "SandboxFailure", "host_link"]

log = logging.getLogger(__name__)

BRIDGE = "podplane0"
_SETTINGS = {
    "net.ipv4.ip_forward": "1",
    # A pod reaches its neighbour by way of us: no mistake to correct. Other interfaces keep their own setting, which
    # the kernel joins with this one by "or".
    "net.ipv4.conf.all.send_redirects": "0",
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the network should be. node_routes: other nodes' pod ranges → their InternalIPs."""

    pod_cidr: str
    cluster_cidr: str
    node_routes: Mapping[str, str] = field(default_factory=dict)


class Network:
    """The pod network of the namespace that open() ran in. `attach` and `detach` block for a millisecond: threads."""

    def __init__(self, netlink: Socket, saved: Path, node_ip: str | None, closed: Closed) -> None:
        self.problem: str | None = "the control plane has not given this node a pod range yet"
        self.route_problems: Mapping[str, str] = {}
        self._netlink = netlink
        self._saved = saved
        self._node_ip = node_ip
        self._closed = closed
        self._rules = GuardRules()
        self._asked: _Asked | None = None
        self._cidr: IPv4Network | None = None
        self._bridge = Bridge(0, 0)

    @classmethod
    async def open(cls, run: Path, node_ip: str | None = None, closed: Closed = CLOSED) -> Network:
        """Open the netlink socket. Raises OSError where there is none.

        run: where the settings that cleanup() gives back are kept. node_ip: the address that the node is known by.
        closed: what pods may not reach.
        """
        return cls(await asyncio.to_thread(Socket), run / "network.json", node_ip, closed)

    def close(self) -> None:
        """Let go of the socket. The network stays as it is."""
        self._netlink.close()

    @property
    def uplink(self) -> Uplink:
        """How this node reaches the others, now. Raises SandboxFailure, OSError."""
        return find_uplink(self._netlink, BRIDGE, self._node_ip)

    async def configure(self, pod_cidr: str, node_routes: Mapping[str, str], cluster_cidr: str) -> None:
        """Make the bridge, forwarding, rules and routes as given; what cannot be done is in `problem`.

        node_routes: other nodes' pod ranges → their InternalIPs. Never raises for what the kernel refuses.
        """
        self._asked = _Asked(pod_cidr, cluster_cidr, dict(node_routes))
        await self.keep()

    async def set_routes(self, node_routes: Mapping[str, str]) -> None:
        """Route other nodes' pod ranges to their InternalIPs, and no longer those that are not given.

        A route that the kernel refuses is kept in `route_problems` and logged; it takes nothing from the others.
        """
        if self._asked is not None:
            self._asked = replace(self._asked, node_routes=dict(node_routes))
        await self.keep()

    async def keep(self) -> None:
        """Look whether all stands as it was asked for, and mend it. For now and then: it costs some milliseconds."""
        if (asked := self._asked) is None:
            return
        before, known = self.problem, self.route_problems
        self.problem = await asyncio.to_thread(self._configure, asked)
        try:
            self.route_problems = await asyncio.to_thread(self._set_routes, asked.node_routes)
        except (OSError, ValueError) as error:
            self.route_problems = {"all": f"cannot set the routes to other nodes: {error}"}
        if self.problem is not None and self.problem != before:
            log.error("the pod network is not ready: %s", self.problem)
        for cidr, problem in self.route_problems.items():
            if known.get(cidr) != problem:
                log.warning("cannot reach the pods of another node: %s", problem)

    def _configure(self, asked: _Asked) -> str | None:
        try:
            cidr, cluster = IPv4Network(asked.pod_cidr), IPv4Network(asked.cluster_cidr)
            if not cidr.subnet_of(cluster):
                return f"the node's pod range {cidr} is not within the cluster's {cluster}"
            uplink = self.uplink
            if uplink.address in cidr:
                return f"the node's pod range {cidr} holds the node's own address {uplink.address}"
            if problem := self._collision(cidr):
                return problem
            self._forward()
            self._bridge = self._make_bridge(cidr, uplink.mtu)
            self._cidr = cidr
            nodes = {uplink.address, *map(IPv4Address, asked.node_routes.values())}
            self._rules.put(guard.rules(cidr, cluster, nodes, self._closed))
        except (SandboxFailure, OSError, ValueError) as error:
            return f"cannot set up the pod network: {error}"
        return None

    def _collision(self, cidr: IPv4Network) -> str | None:
        found = [links.read_link(body) for body in self._netlink.dump(links.list_links())]
        own = frozenset(link.index for link in found if link.name == BRIDGE)
        other = overlap(routes(self._netlink), cidr, own)
        if other is None:
            return None
        name = next((link.name for link in found if link.index == other.output), f"link {other.output}")
        return (
            f"the node's pod range {cidr} overlaps its route to {other.destination} on {name}: remove that route, or "
            "give the cluster another range (--cluster-cidr of the control plane)"
        )

    def _forward(self) -> None:
        sysctl.save(self._saved, [*sysctl.forwarding(), *_SETTINGS])
        for name, value in _SETTINGS.items():
            sysctl.write(name, value)

    def _make_bridge(self, cidr: IPv4Network, mtu: int) -> Bridge:
        own = IPv4Interface((gateway(str(cidr)), cidr.prefixlen))
        mac = hardware_address(own.ip)
        [refused] = self._netlink.attempt(links.add_bridge(BRIDGE, mac, mtu))
        if refused is not None and refused.errno != errno.EEXIST:
            raise refused
        found = [links.read_link(body) for body in self._netlink.dump(links.list_links())]
        bridge = next(link for link in found if link.name == BRIDGE)
        if bridge.kind != "bridge":
            raise OSError(errno.EEXIST, f"the name {BRIDGE} belongs to a link that is not a bridge")
        if refused is not None and (bridge.mtu != mtu or not bridge.up or bridge.mac != mac.hex(":")):
            self._netlink.do(links.set_link(BRIDGE, mac, mtu))
        present = addresses(self._netlink, bridge.index)
        if own not in present:
            self._netlink.do(links.put_address(bridge.index, own))
        for foreign in present:
            if foreign != own:
                self._netlink.do(links.delete_address(bridge.index, foreign))
        sysctl.write(f"net.ipv4.conf.{BRIDGE}.rp_filter", "1")  # pods send from their range only
        sysctl.write(f"net.ipv4.conf.{BRIDGE}.send_redirects", "0")
        podlink.rejoin(self._netlink, bridge.index, found)
        return Bridge(bridge.index, mtu)

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
        return [route for route in routes(self._netlink) if route.protocol == links.ROUTE_PROTOCOL]

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
        own = IPv4Interface((address, cidr.prefixlen))
        try:
            podlink.attach(self._netlink, self._bridge, host_link(pod_uid, attempt), netns, own)
        except OSError as error:
            raise SandboxFailure(f"cannot attach the pod to the network: {error}") from error

    def detach(self, pod_uid: str, attempt: int) -> None:
        """Remove the pod's pair, wherever its other end is; nothing to do where it is gone. Raises OSError.

        Blocks for some 40 ms where it is there.
        """
        podlink.detach(host_link(pod_uid, attempt))

    async def cleanup(self) -> None:
        """Remove the bridge, every pair on it, every route and rule, and give forwarding back as it was found."""
        await asyncio.to_thread(self._cleanup)

    def _cleanup(self) -> None:
        self._asked = None
        for route in self._own_routes():
            self._delete_route(route)
        found = [links.read_link(body) for body in self._netlink.dump(links.list_links())]
        bridges = {link.index for link in found if link.name == BRIDGE and link.kind == "bridge"}
        for link in found:
            if podlink.is_ours(link) and (link.master in bridges or link.group):
                gone(self._netlink.attempt(links.delete_link(link.name)))
        if bridges:
            gone(self._netlink.attempt(links.delete_link(BRIDGE)))
        self._rules.remove()
        sysctl.restore(self._saved)
        self.problem, self._cidr, self._bridge = "the pod network was removed", None, Bridge(0, 0)
