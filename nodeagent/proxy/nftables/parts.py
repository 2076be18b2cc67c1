"""What one service adds to the table: elements, and for session affinity chains and sets of its own. Pure.

Owns which element leads where. Elements are spelled as nft takes them; reading.py spells those in the kernel alike, so
that they can be compared. Cannot fail: services.py has refused what has no rule.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nodeagent.proxy.elements import Container, Key, Value
from nodeagent.proxy.nftables.table import (
    FRONTENDS,
    LOCAL_SLOTS,
    PLAIN,
    Rules,
    affinity_map,
    backends,
    endpoint_set,
    frontends,
    pick_chain,
)
from nodeagent.proxy.services import Endpoint, HostPort, ServicePort


@dataclass(frozen=True, slots=True)
class Part:
    """What one service has in the table, beside the chains that all share."""

    elements: Mapping[Key, Value] = field(default_factory=dict)
    chains: Mapping[str, Rules | None] = field(default_factory=dict)
    """Of its own; None: there, with rules that are not known."""
    containers: Mapping[str, Container] = field(default_factory=dict)
    picks: frozenset[str] = frozenset()
    """Shared chains that it leads to."""
    sticky: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Affinity maps, and the endpoints that these may lead to."""
    hairpins: frozenset[str] = frozenset()
    """Addresses that may reach themselves by way of the service. Several services may share one."""


NOTHING = Part()
_COMMENT = 128
"""Characters of a comment that nft takes; namespace and name are 127 at most."""


def part(ports: Sequence[ServicePort]) -> Part:
    """Build what one service has."""
    maker = _Maker()
    for port in ports:
        maker.add(port)
    return Part(
        maker.elements, maker.chains, maker.containers, frozenset(maker.picks), maker.sticky, frozenset(maker.hairpins)
    )


def places(made: Part) -> list[str]:
    """Where the service is asked for; nobody else may be."""
    return [key for container, key in made.elements if container in FRONTENDS]


def host_part(host_ports: Iterable[HostPort]) -> Part:
    """Build what all host ports have together."""
    elements: dict[Key, Value] = {}
    hairpins = set()
    for item in host_ports:
        place = f"{item.protocol} . {item.port}"
        key = ("host-ports-at", f"{item.address} . {place}") if item.address else ("host-ports", place)
        # Where two pods claim the same port, the scheduler was wrong; one of them has it.
        elements.setdefault(key, (_target(item.target), item.pod))
        hairpins.add(item.target.address)
    return Part(elements, hairpins=frozenset(hairpins))


class _Maker:
    def __init__(self) -> None:
        self.elements: dict[Key, Value] = {}
        self.chains: dict[str, Rules | None] = {}
        self.containers: dict[str, Container] = {}
        self.picks: set[str] = set()
        self.sticky: dict[str, frozenset[str]] = {}
        self.hairpins: set[str] = set()

    def add(self, port: ServicePort) -> None:
        self.hairpins.update([end.address for end in (*port.endpoints, *port.local_endpoints) if end.local])
        self._frontend(port, "", f"{port.cluster_ip} . {port.protocol} . {port.port}", external=False)
        for address in port.load_balancer_ips:
            self._frontend(port, "", f"{address} . {port.protocol} . {port.port}", external=True)
        if port.node_port:
            self._frontend(port, "node-", f"{port.protocol} . {port.node_port}", external=True)

    def _frontend(self, port: ServicePort, prefix: str, place: str, *, external: bool) -> None:
        """One place where the port is asked for. prefix: of the containers and chains for such places."""
        portals = frontends(node=bool(prefix))
        if not port.endpoints:
            self.elements[f"{prefix}refused", place] = ("", _comment(port))
            return
        if external and port.external_local:
            self.elements[portals, place] = (f"goto {prefix}local", _comment(port))
            self._lead(port, prefix, place, f"{prefix}inside", local=False)
            self._lead(port, prefix, place, f"{prefix}outside", local=True)
        else:
            self._lead(port, prefix, place, portals, local=port.internal_local and not external)
        if port.affinity:
            self.elements[f"{prefix}records", place] = (f"goto {self._record(port)}", "")

    def _lead(self, port: ServicePort, prefix: str, place: str, container: str, *, local: bool) -> None:
        """Let a place of a container lead to all endpoints or to this node's."""
        endpoints = port.local_endpoints if local else port.endpoints
        comment = _comment(port) if container in FRONTENDS else ""
        if not endpoints:
            self.elements[container, place] = ("drop", comment)
            return
        targets = backends(port.protocol, node=bool(prefix))
        asked = place.replace(f"{port.protocol} . ", "")
        for slot, (address, number, _) in enumerate(endpoints, LOCAL_SLOTS if local else 0):
            self.elements[targets, f"{asked} . {slot}"] = (f"{address} . {number}", "")
        chain = pick_chain(len(endpoints), node=bool(prefix), local=local)
        self.picks.add(chain)
        if container in FRONTENDS and not local and not port.affinity and len(endpoints) <= PLAIN:
            self.elements[frontends(node=bool(prefix), count=len(endpoints)), place] = ("", comment)
            return
        if port.affinity:
            chain = self._stay(port, prefix, chain, endpoints, local=local)
        self.elements[container, place] = (f"goto {chain}", comment)

    def _stay(self, port: ServicePort, prefix: str, pick: str, endpoints: tuple[Endpoint, ...], *, local: bool) -> str:
        """A chain that leads to the endpoint that the client had before, if it had one."""
        identity = _identity(port)
        group = f"{'local-' if local else ''}{identity}"
        clients, known = f"aff-{group}", f"eps-{group}"
        self.containers[clients] = affinity_map(clients, port.affinity)
        self.containers[known] = endpoint_set(known)
        targets = frozenset(_target(endpoint) for endpoint in endpoints)
        self.sticky[clients] = targets
        self.elements |= {(known, target): ("", "") for target in targets}
        chain = f"{prefix}stay-{group}"
        self.chains[chain] = (f"meta l4proto {port.protocol} dnat ip to ip saddr map @{clients}", f"goto {pick}")
        return chain

    def _record(self, port: ServicePort) -> str:
        """A chain that remembers who was given which endpoint; none that is gone meanwhile."""
        identity = _identity(port)
        chain = f"record-{identity}"
        groups = [group for group in (identity, f"local-{identity}") if f"aff-{group}" in self.containers]
        remember = f"{{ ip saddr timeout {port.affinity}s : ip daddr . th dport }}"
        self.chains[chain] = tuple(
            f"ip daddr . th dport @eps-{group} update @aff-{group} {remember}" for group in groups
        )
        return chain


def _comment(port: ServicePort) -> str:
    """The port's name, with all of the service's: adopt.py finds it by that."""
    return port.title[:_COMMENT]


def _target(endpoint: Endpoint) -> str:
    return f"{endpoint.address} . {endpoint.port}"


def _identity(port: ServicePort) -> str:
    """The same for the same port on every node, and another one where the time is another."""
    identity = f"{port.title}|{port.protocol}|{port.port}|{port.affinity}"
    return base64.b32encode(hashlib.sha256(identity.encode()).digest()).decode()[:14].lower()
