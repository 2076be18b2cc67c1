"""What IPVS is asked for, as values: virtual servers, their addresses, and the nftables side of each service. Pure.

    cluster address:port ─────────────────────────────► virtual server at that address    (internal endpoints)
    node port, load balancer ──────────────────── DNAT ► the same one, where it has the endpoints that are asked for
                            └─ chain of the port ─ mark ► a virtual server of that firewall mark, where a policy wants
                                                         others than the cluster address has
    127.0.0.1:node port ───── slot, by chance ─── DNAT ► an endpoint: IPVS sends nothing on from loopback

One virtual server for all ways to the same endpoints also makes session affinity hold whichever way a client asks. Only
a policy of Local takes a chain of its own, and none names endpoints: so their change is one of elements at most.
Owns names and marks. Never says what has changed. Cannot fail: services.py has refused what has no rule.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nodeagent.proxy.mode import MASQUERADE_MARK, Ranges
from nodeagent.proxy.services import Endpoint, HostPort, ServicePort

DEVICE = "podplane-ipvs0"
"""Has the service addresses."""
MARK_TAGS = {"tcp": 0xB1, "udp": 0xB2}
"""The low 13 bits of a mark of ours; bit 13 says "masquerade", and the bits above it are a port's own."""
SLOTS = (*range(1, 17), 32, 64, 128, 256, 512, 1024)
"""How many slots there may be by which localhost chooses an endpoint. Of more than 16 endpoints some have two slots, of
more than 1024 some none."""
PLAIN_SLOTS = 4
"""So many or fewer, without affinity, are told by a set: the kernel follows all elements that lead to a chain when one
is added."""
_TAG_BITS = 0x1FFF
_MARK_SHIFT = 14

Target = tuple[str, int]
"""Address and port of a real server."""


@dataclass(frozen=True, slots=True, order=True)
class Front:
    """What identifies a virtual server: protocol, address and port, or else a firewall mark."""

    protocol: str = ""
    address: str = ""
    port: int = 0
    mark: int = 0

    def __str__(self) -> str:
        return f"mark {self.mark:#x}" if self.mark else f"{self.protocol} {self.address}:{self.port}"

    @property
    def is_marked_ours(self) -> bool:
        return self.mark & _TAG_BITS in MARK_TAGS.values()

    @property
    def is_udp(self) -> bool:
        return self.protocol == "udp" or self.mark & _TAG_BITS == MARK_TAGS["udp"]


@dataclass(frozen=True, slots=True)
class Server:
    """A virtual server. affinity: seconds that a client stays with its real server; 0: none.

    Without targets none is made, but one that is there may keep the connections that it has.
    """

    scheduler: str
    affinity: int
    targets: frozenset[Target]


@dataclass(frozen=True, slots=True)
class Addresses:
    """The node's: those of our device, and those of its other links, which no service takes from it."""

    ours: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()


Share = Front | tuple[str, str]
"""A virtual server or an element."""
Elements = Mapping[tuple[str, str], tuple[str, str]]
"""(set or map, key as nft spells it) → what it leads to ("" in a set), and whose it is alone ("": nobody's)."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one service, or all host ports, add. chains: name → rules."""

    servers: Mapping[Front, Server] = field(default_factory=dict)
    addresses: frozenset[str] = frozenset()
    """Of the service itself."""
    elements: Elements = field(default_factory=dict)
    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    digest: int = 0
    """A number for the nftables side: equal for equal ones, on every node and in every run."""


def shares(made: Part) -> Iterator[Share]:
    """What is its service's alone: nobody else may have it."""
    yield from made.servers
    yield from made.elements


def spelled(share: Share) -> str:
    """As messages have it."""
    return str(share) if isinstance(share, Front) else " ".join(share)


def part(ports: Sequence[ServicePort], ranges: Ranges, scheduler: str, slots: Mapping[str, int]) -> Part:
    """What one service needs. slots: the marks of its mark_names()."""
    servers: dict[Front, Server] = {}
    elements: dict[tuple[str, str], tuple[str, str]] = {}
    chains: dict[str, tuple[str, ...]] = {}
    for port in ports:
        servers.update(_servers(port, scheduler, slots))
        elements.update(_elements(port))
        if port.is_external and port.endpoints and not _is_plain(port):
            chains[_chain(port)] = tuple(_external(port, ranges, slots))
    addresses = {port.cluster_ip for port in ports} | {item for port in ports for item in port.load_balancer_ips}
    return Part(servers, frozenset(addresses), elements, chains, digest_of(elements, chains))


def digest_of(elements: Elements, chains: Mapping[str, tuple[str, ...]]) -> int:
    return hash_of(repr((sorted(elements.items()), sorted(chains.items()))))


def hash_of(text: str) -> int:
    """64 bits."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _servers(port: ServicePort, scheduler: str, slots: Mapping[str, int]) -> Iterator[tuple[Front, Server]]:
    def server(endpoints: Iterable[Endpoint]) -> Server:
        return Server(scheduler, port.affinity, frozenset((item.address, item.port) for item in endpoints))

    yield Front(port.protocol, port.cluster_ip, port.port), server(port.internal)
    for local, masquerade in _marked_ways(port) if port.is_external else ():
        front = Front(mark=_mark(port, local, masquerade, slots))
        yield front, server(port.local_endpoints if local else port.endpoints)


def _marked_ways(port: ServicePort) -> list[tuple[bool, bool]]:
    """(this node's endpoints only, masqueraded) for each way that the cluster address' virtual server is not for."""
    if port.external_local:
        return [(False, False), (False, True)] if port.internal_local else [(True, False)]
    return [(False, True)] if port.internal_local else []


def _elements(port: ServicePort) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    owner, refuse, plain = port.service, "goto refuse", _is_plain(port)
    chain = "" if plain else f"goto {_chain(port)}"
    cluster = f"{port.cluster_ip} . {port.port}"
    here = f"{port.cluster_ip} . {port.protocol} . {port.port}"
    if port.internal:
        yield ("served", here), ("", owner)
    else:
        yield ("closed", here), ("drop" if port.endpoints else refuse, owner)
    for address in port.load_balancer_ips:
        asked = f"{address} . {port.protocol} . {port.port}"
        if port.endpoints:
            yield ("served", asked), ("", owner)
            yield ("balanced", asked), ("goto forward_at" if plain else chain, owner)
            if plain:
                yield ("forwarded_at", asked), (cluster, owner)
        else:
            yield ("closed", asked), (refuse, owner)
    if port.node_port:
        number = f"{port.protocol} . {port.node_port}"
        if port.endpoints:
            yield ("node_ports", number), ("goto forward_port" if plain else chain, owner)
            if plain:
                yield ("forwarded_ports", number), (cluster, owner)
            yield from _loopback(port, number)
        else:
            yield ("closed_ports", number), (refuse, owner)


def _is_plain(port: ServicePort) -> bool:
    """Whether all who ask from outside are led to the cluster address."""
    return not (port.external_local or port.internal_local)


def _loopback(port: ServicePort, number: str) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    """By which chance 127.0.0.1 leads to which endpoint."""
    owner, count = port.service, len(port.endpoints)
    size = next((size for size in SLOTS if size >= count), SLOTS[-1])
    if size <= PLAIN_SLOTS and not port.affinity:
        yield (f"loopback_{size}", number), ("", owner)
    else:
        yield ("loopback", number), (f"goto {'same' if port.affinity else 'any'}_{size}", owner)
    for slot in range(size):
        end = port.endpoints[slot % count]
        yield (f"loopback_{port.protocol}", f"{port.node_port} . {slot}"), (f"{end.address} . {end.port}", owner)


def _external(port: ServicePort, ranges: Ranges, slots: Mapping[str, int]) -> Iterator[str]:
    """The chain of a port that is not plain, for the first packet of those who ask for it from outside."""
    nat = f"meta l4proto {port.protocol} dnat ip to"
    masquerade = f"meta mark set meta mark or {MASQUERADE_MARK:#x}"
    everywhere = f"{nat} {port.cluster_ip}:{port.port}"
    yield "ip daddr 127.0.0.0/8 goto loopback"
    if not port.external_local:
        yield f"meta mark set {_mark(port, False, True, slots):#x} accept"
        return
    for source, masqueraded in ((f"ip saddr {ranges.pod_cidr}", False), ("fib saddr type local", True)):
        if port.internal_local:
            yield f"{source} meta mark set {_mark(port, False, masqueraded, slots):#x} accept"
        else:
            yield f"{source} {masquerade} {everywhere}" if masqueraded else f"{source} {everywhere}"
    if not port.local_endpoints:
        # A load balancer takes silence for "not this node", and a refusal for "the service is down".
        yield "drop"
    elif port.internal_local:
        yield everywhere
    else:
        yield f"meta mark set {_mark(port, True, False, slots):#x} accept"


def host_ports(items: Iterable[HostPort]) -> Part:
    """What the host ports of this node's pods need: NAT alone."""
    elements: dict[tuple[str, str], tuple[str, str]] = {}
    chains: dict[str, tuple[str, ...]] = {}
    mark = f"meta mark set meta mark or {MASQUERADE_MARK:#x}"
    for item in items:
        name = _hashed("host", f"{item.pod}|{item.protocol}|{item.address}|{item.port}|{item.target}")
        number = f"{item.protocol} . {item.port}"
        key = ("host_ports_at", f"{item.address} . {number}") if item.address else ("host_ports", number)
        elements.setdefault(key, (f"goto {name}", ""))
        chains[name] = (
            # Back to where it came from, or from an address that no pod can answer: the node must be the source.
            f"ip saddr {{ {item.target.address}, 127.0.0.0/8 }} {mark}",
            f"meta l4proto {item.protocol} dnat ip to {item.target}",
        )
    return Part(elements=elements, chains=chains, digest=digest_of(elements, chains))


def mark_names(ports: Sequence[ServicePort]) -> set[str]:
    """What of a service needs a mark of its own: each has a slot of marks.py."""
    return {_mark_name(port, local) for port in ports if port.is_external for local, _ in _marked_ways(port)}


def _mark_name(port: ServicePort, local: bool) -> str:
    return f"{_identity(port)}|{local}"


def _mark(port: ServicePort, local: bool, masquerade: bool, slots: Mapping[str, int]) -> int:
    slot = slots[_mark_name(port, local)]
    return slot << _MARK_SHIFT | (MASQUERADE_MARK if masquerade else 0) | MARK_TAGS[port.protocol]


def _identity(port: ServicePort) -> str:
    # Not the title alone: a port of TCP and one of UDP may share their name.
    return f"{port.title}|{port.protocol}|{port.port}"


def _chain(port: ServicePort) -> str:
    return _hashed("port", _identity(port))


def _hashed(kind: str, identity: str) -> str:
    digest = base64.b32encode(hashlib.sha256(identity.encode()).digest()).decode().lower()
    return f"{kind}-{digest[:16]}"
