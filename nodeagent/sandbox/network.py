"""The node's pod network: one bridge, a veth pair for each pod, routes to the other nodes' pods. All by netlink.

    pod eth0 (10.x.y.z/24, everything via the gateway) ══ ppXXXXXXXXXXX ── podplane0 (10.x.y.1) ── routing ─┬─ uplink
                                                                        podplane-vxlan, to nodes behind a router ─┘

A pod sends even to its neighbours through the gateway (its address has no route for the range): service rules then
see both directions of every connection without the br_netfilter module.

Owns podplane0 (bridge.py), the `pp…` links (podlink.py), podplane-vxlan (tunnel.py), the routes of protocol 112 and
the nftables tables of guard.py; never touches another link, address, route or rule. Services are the proxy's. Each step
can be done again: what stands is verified and mended, by keep(). Failures: `problem` says why pods cannot have a
network now; attach raises SandboxFailure.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from nodeagent.netlink import Socket
from nodeagent.sandbox import bridge, guard, links, podlink, sysctl, tunnel
from nodeagent.sandbox.bridge import BRIDGE
from nodeagent.sandbox.failure import SandboxFailure
from nodeagent.sandbox.guard import CLOSED, Closed
from nodeagent.sandbox.nft import GuardRules
from nodeagent.sandbox.peers import PORT, Plan, mtu, plan, tunnel_end
from nodeagent.sandbox.podlink import Bridge, gone, host_link
from nodeagent.sandbox.uplink import Uplink, find_uplink, overlap, present, routes

__all__ = ["BRIDGE", "FORWARDING", "Closed", "Network", "SandboxFailure", "Settings", "host_link"]

log = logging.getLogger(__name__)

_OWN = frozenset({BRIDGE, tunnel.DEVICE})
FORWARDING = {
    "net.ipv4.ip_forward": "1",
    # A pod reaches its neighbour by way of us: no mistake to correct. Other interfaces keep their own setting, which
    # the kernel joins with this one by "or".
    "net.ipv4.conf.all.send_redirects": "0",
}
"""The kernel's settings that the network needs."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the network should be. node_routes: other nodes' pod ranges → their InternalIPs."""

    pod_cidr: str
    cluster_cidr: str
    node_routes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """How the network is made. node_ip: the address that the node is known by; None: the default route's.

    tunnel: when other nodes are reached in one (peers.MODES). vxlan_port: its UDP port, the same on all nodes.
    """

    node_ip: str | None = None
    closed: Closed = CLOSED
    tunnel: str = "auto"
    vxlan_port: int = PORT


SETTINGS = Settings()


class Network:
    """The pod network of the namespace that open() ran in. `attach` and `detach` block for a millisecond: threads."""

    def __init__(self, netlink: Socket, saved: Path, settings: Settings) -> None:
        self.problem: str | None = "the control plane has not given this node a pod range yet"
        self.route_problems: Mapping[str, str] = {}
        self._netlink = netlink
        self._saved = saved
        self._settings = settings
        self._rules = GuardRules()
        self._asked: _Asked | None = None
        self._cidr: IPv4Network | None = None
        self._bridge = Bridge(0, 0)
        self._plan = Plan()
        self._tunnel = 0

    @classmethod
    async def open(cls, run: Path, settings: Settings = SETTINGS) -> Network:
        """Open the netlink socket. Raises OSError where there is none.

        run: where the kernel's settings that cleanup() gives back are kept.
        """
        return cls(await asyncio.to_thread(Socket), run / "network.json", settings)

    def close(self) -> None:
        """Let go of the socket. The network stays as it is."""
        self._netlink.close()

    @property
    def uplink(self) -> Uplink:
        """How this node reaches the others, now. Raises SandboxFailure, OSError."""
        return self._uplink(present(self._netlink))

    def _uplink(self, there: Sequence[links.Link]) -> Uplink:
        return find_uplink(self._netlink, there, _OWN, self._settings.node_ip)

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
        self.problem, self.route_problems = await asyncio.to_thread(self._kept, asked)
        if self.problem is not None and self.problem != before:
            log.error("the pod network is not ready: %s", self.problem)
        for cidr, problem in self.route_problems.items():
            if known.get(cidr) != problem:
                log.warning("cannot reach the pods of another node: %s", problem)

    def _kept(self, asked: _Asked) -> tuple[str | None, dict[str, str]]:
        """What is wrong with the network, and with routes to other nodes."""
        problem = self._configure(asked)
        try:
            return problem, self._set_routes()
        except OSError as error:
            return problem, {"all": f"cannot set the routes to other nodes: {error}"}

    def _configure(self, asked: _Asked) -> str | None:
        try:
            cidr, cluster = IPv4Network(asked.pod_cidr), IPv4Network(asked.cluster_cidr)
            if not cidr.subnet_of(cluster):
                return f"the node's pod range {cidr} is not within the cluster's {cluster}"
            there = present(self._netlink)  # once: with many pods it is most of what a look costs
            uplink = self._uplink(there)
            if uplink.address in cidr:
                return f"the node's pod range {cidr} holds the node's own address {uplink.address}"
            found = routes(self._netlink)
            if problem := self._collision(cidr, found, there):
                return problem
            others = [(route.destination, route.gateway is None) for route in found if not route.is_ours]
            self._plan = plan(asked.node_routes, cidr, others, self._settings.tunnel)
            self._forward()
            self._bridge = bridge.put(self._netlink, there, cidr, mtu(uplink.mtu, self._plan))
            self._cidr = cidr
            self._dig(cidr, uplink, there)
            self._guard(cidr, cluster, uplink)
        except (SandboxFailure, OSError, ValueError) as error:
            return f"cannot set up the pod network: {error}"
        return None

    def _dig(self, cidr: IPv4Network, uplink: Uplink, there: Sequence[links.Link]) -> None:
        """Make the tunnel, or take it away where nobody is behind a router."""
        if self._plan.tunneled:
            self._tunnel = tunnel.put(self._netlink, cidr, uplink, self._settings.vxlan_port, self._plan.tunneled)
        else:
            tunnel.remove(self._netlink, there)
            self._tunnel = 0

    def _guard(self, cidr: IPv4Network, cluster: IPv4Network, uplink: Uplink) -> None:
        inlet = (self._settings.vxlan_port, tunnel.VNI) if self._tunnel else None
        nodes = {uplink.address, *self._plan.nodes}
        self._rules.put(guard.rules(cidr, cluster, nodes, self._settings.closed, inlet))

    def _collision(self, cidr: IPv4Network, known: list[links.Route], there: Sequence[links.Link]) -> str | None:
        own = frozenset(link.index for link in there if link.name in _OWN)
        other = overlap(known, cidr, own)
        if other is None:
            return None
        name = next((link.name for link in there if link.index == other.output), f"link {other.output}")
        return (
            f"the node's pod range {cidr} overlaps its route to {other.destination} on {name}: remove that route, or "
            "give the cluster another range (--cluster-cidr of the control plane)"
        )

    def _forward(self) -> None:
        sysctl.save(self._saved, [*sysctl.forwarding(), *FORWARDING])
        for name, value in FORWARDING.items():
            sysctl.write(name, value)

    def _set_routes(self) -> dict[str, str]:
        """Route each range by way of its node, or into the tunnel. Returns what the kernel refused."""
        wanted: dict[IPv4Network, tuple[IPv4Address, int | None]] = {
            cidr: (address, None) for cidr, address in self._plan.direct.items()
        }
        if self._tunnel:
            wanted |= {cidr: (tunnel_end(cidr), self._tunnel) for cidr in self._plan.tunneled}
        present = {route.destination: route for route in self._own_routes()}
        for destination, route in present.items():
            if destination not in wanted:
                self._delete_route(route)
        problems = dict(self._plan.problems)
        for cidr, (hop, output) in wanted.items():
            known = present.get(cidr)
            # A gateway on a link of ours: whichever link that is.
            stands = known is not None and known.gateway == hop and (known.output == self._tunnel) == bool(output)
            if not stands:
                # Replaces nothing but our own: somebody else's route to the same range is a problem to be told.
                request = links.put_route(cidr, hop, output, replace=known is not None, onlink=output is not None)
                [error] = self._netlink.attempt(request)
                if error is not None:
                    problems[str(cidr)] = str(error)
        return problems

    def _own_routes(self) -> list[links.Route]:
        return [route for route in routes(self._netlink) if route.is_ours]

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
        found = present(self._netlink)
        bridges = {link.index for link in found if link.name == BRIDGE and link.kind == "bridge"}
        for link in found:
            if podlink.is_ours(link) and (link.master in bridges or link.group):
                gone(self._netlink.attempt(links.delete_link(link.name)))
        if bridges:
            gone(self._netlink.attempt(links.delete_link(BRIDGE)))
        tunnel.remove(self._netlink, found)
        self._rules.remove()
        sysctl.restore(self._saved)
        self.problem, self._cidr, self._bridge = "the pod network was removed", None, Bridge(0, 0)
        self._plan, self._tunnel = Plan(), 0
