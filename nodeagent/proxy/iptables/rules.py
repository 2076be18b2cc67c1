"""The iptables rules of a node, as values. Pure: service ports in, chains out; README.md draws the packet's path.

Owns the names PODPLANE-* and the shape: one chain a port, without one for each endpoint, since before nft takes a rule
it follows all chains. Never runs a command and never says what has changed: it always builds the whole. Rules are
spelled as iptables-save prints them, so that what is in the kernel can be compared as text. Cannot fail: services.py
has refused what has no rule.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nodeagent.proxy.mode import MASQUERADE_MARK, Ranges
from nodeagent.proxy.services import Endpoint, HostPort, ServicePort

Rules = tuple[str, ...]
"""The rules of one chain, in order, without the leading `-A CHAIN`."""
Tables = Mapping[str, Mapping[str, Rules]]
"""table → chain → rules. Only chains of ours."""

PREFIX = "PODPLANE-"
MARK = f"{MASQUERADE_MARK:#x}/{MASQUERADE_MARK:#x}"
"""Says "masquerade me" between the nat chains."""

SERVICES, NODEPORTS = f"{PREFIX}SERVICES", f"{PREFIX}NODEPORTS"
"""The chains of both tables in which services have their lines."""
MADE = f"{PREFIX}MADE"
"""Nobody jumps to it: it says which of the kernel's own chains are there because of us (bases.py)."""
HAIRPINS = f"{PREFIX}HAIRPINS"
"""Has a rule for each of this node's endpoints, which several services may share."""
OWN_KINDS = ("SVC", "SVL", "EXT", "SEP")
"""The chains of one service are named PODPLANE-<kind>-<hash>. SEP: for an endpoint, in rules of an older version."""
_POSTROUTING, HOSTPORTS = f"{PREFIX}POSTROUTING", f"{PREFIX}HOSTPORTS"
_MARK_MASQ, _FORWARD, _INPUT = f"{PREFIX}MARK-MASQ", f"{PREFIX}FORWARD", f"{PREFIX}INPUT"
_REFUSE = "-j REJECT --reject-with icmp-port-unreachable"
_MASQUERADE = "-j MASQUERADE --random-fully"
UNMARK = f"-j MARK --set-xmark 0x0/{MASQUERADE_MARK:#x}"


@dataclass(frozen=True, slots=True)
class Jump:
    """A rule in a chain that is not ours, the only kind that we put there: always the first."""

    table: str
    chain: str
    rule: str


_PORTALS = '-m comment --comment "podplane service portals"'
JUMPS = (
    Jump("nat", "PREROUTING", f"{_PORTALS} -j {SERVICES}"),
    Jump("nat", "OUTPUT", f"{_PORTALS} -j {SERVICES}"),
    Jump("nat", "POSTROUTING", f'-m comment --comment "podplane masquerade" -j {_POSTROUTING}'),
    Jump("filter", "INPUT", f'-m comment --comment "podplane node ports" -j {_INPUT}'),
    Jump("filter", "FORWARD", f'-m comment --comment "podplane forwarding" -j {_FORWARD}'),
    Jump("filter", "OUTPUT", f"-m conntrack --ctstate NEW {_PORTALS} -j {SERVICES}"),
)


@dataclass(frozen=True, slots=True)
class Part:
    """What one service adds: chains of its own in nat, and its lines in the chains that all share.

    hairpins: the addresses of its endpoints on this node.
    """

    chains: Mapping[str, Rules] = field(default_factory=dict)
    portals: Rules = ()
    node_ports: Rules = ()
    refused: Rules = ()
    refused_node_ports: Rules = ()
    hairpins: frozenset[str] = frozenset()


def part(ports: Sequence[ServicePort], ranges: Ranges) -> Part:
    """Build the rules of one service."""
    chains: dict[str, Rules] = {}
    portals, node_ports, refused, refused_node_ports = [], [], [], []
    for port in ports:
        chains |= _chains(port, ranges)
        if port.internal:
            portals.append(f"{_portal(port, 'cluster IP')} -j {_picking(port, port.internal_local)}")
        if port.is_external and port.endpoints:
            target = _chain("EXT", port)
            portals += [f"{_portal(port, 'load balancer IP', item)} -j {target}" for item in port.load_balancer_ips]
            node_ports += [f"{_node_port(port, 'node port')} -j {target}"] if port.node_port else []
        lines, node_lines = _refusals(port)
        refused += lines
        refused_node_ports += node_lines
    hairpins = frozenset(endpoint.address for port in ports for endpoint in port.reachable if endpoint.local)
    return Part(chains, tuple(portals), tuple(node_ports), tuple(refused), tuple(refused_node_ports), hairpins)


def assemble(parts: Iterable[Part], ranges: Ranges, host_ports: Iterable[HostPort] = ()) -> Tables:
    """Join the services' parts with what every node has."""
    nat: dict[str, Rules] = {}
    portals: list[str] = []
    node_ports: list[str] = []
    refused: list[str] = []
    refused_node_ports: list[str] = []
    hairpins: set[str] = set()
    for item in parts:
        nat.update(item.chains)
        portals += item.portals
        node_ports += item.node_ports
        refused += item.refused
        refused_node_ports += item.refused_node_ports
        hairpins |= item.hairpins
    # Node ports come last, so that a service's own address wins where it is an address of the node as well.
    local = "-m addrtype --dst-type LOCAL"
    last = f'-m comment --comment "node ports, after every cluster IP" {local} -j {NODEPORTS}'
    pods = f'-m comment --comment "host ports of pods, after every service" {local} -j {HOSTPORTS}'
    nat |= _host_ports(host_ports)
    nat |= {
        SERVICES: (from_outside(ranges), *portals, UNMARK, last, pods),
        NODEPORTS: tuple(node_ports),
        _MARK_MASQ: (f"-j MARK --set-xmark {MARK}",),
        _POSTROUTING: _postrouting(),
        HAIRPINS: tuple(map(hairpin, sorted(hairpins))),
    }
    filters = {
        SERVICES: tuple(refused),
        NODEPORTS: tuple(refused_node_ports),
        _INPUT: _input(),
        _FORWARD: _forward(ranges.cluster_cidr),
    }
    return {"nat": nat, "filter": filters}


def _chains(port: ServicePort, ranges: Ranges) -> dict[str, Rules]:
    """The port's own chains: SVC picks among all endpoints, SVL among this node's, EXT is for those from outside."""
    chains: dict[str, Rules] = {}
    groups = [(False, port.endpoints)] if port.is_external or not port.internal_local else []
    groups += [(True, port.local_endpoints)] if port.internal_local or port.external_local else []
    for local, endpoints in groups:
        if endpoints:
            chains[_picking(port, local)] = tuple(_picks(port, endpoints))
    if port.is_external and port.endpoints:
        chains[_chain("EXT", port)] = _external(port, ranges)
    return chains


def _picking(port: ServicePort, local: bool) -> str:
    return _chain("SVL" if local else "SVC", port)


def _refusals(port: ServicePort) -> tuple[list[str], list[str]]:
    """What is not translated since nobody answers: lines for the port's addresses, and for the node's own."""
    lines, node_lines = [], []
    if not port.internal:
        why, target = _refusal(port)
        lines.append(f"{_portal(port, why)} {target}")
    if not port.external:
        why, target = _refusal(port)
        balanced = [f"{_portal(port, why, item)} {target}" for item in port.load_balancer_ips]
        lines += balanced
        node_lines += balanced
        if port.node_port:
            node_lines.append(f"{_node_port(port, why, '-m addrtype --dst-type LOCAL')} {target}")
    return lines, node_lines


def _refusal(port: ServicePort) -> tuple[str, str]:
    # A load balancer takes silence for "not this node", and a refusal for "the service is down".
    return ("has no local endpoints", "-j DROP") if port.endpoints else ("has no endpoints", _REFUSE)


def _picks(port: ServicePort, endpoints: tuple[Endpoint, ...]) -> Iterator[str]:
    """Each endpoint with equal chance, after those who are known to a client's endpoint."""
    count = len(endpoints)
    if port.affinity:
        for endpoint in endpoints:
            known = f" -m recent --update --seconds {port.affinity} --reap {_recent(port, endpoint)}"
            yield _translation(port.protocol, endpoint, known)
    for index, endpoint in enumerate(endpoints):
        remember = f" -m recent --set {_recent(port, endpoint)}" if port.affinity else ""  # of whom chance has chosen
        yield _translation(port.protocol, endpoint, _chance(count - index) + remember)


def _translation(protocol: str, endpoint: Endpoint, matches: str) -> str:
    return f"-p {protocol}{matches} -j DNAT --to-destination {endpoint}"


def _recent(port: ServicePort, endpoint: Endpoint) -> str:
    """The list of the endpoint's clients; its name was a chain's in an older version, and clients outlive an update."""
    return f"--name {_chain('SEP', port, endpoint)} --mask 255.255.255.255 --rsource"


def _chance(remaining: int) -> str:
    """1 in `remaining`, in the kernel's 31 bits as iptables-save prints them; nothing for the last."""
    if remaining == 1:
        return ""
    return f" -m statistic --mode random --probability {round(2**31 / remaining) / 2**31:.11f}"


def _external(port: ServicePort, ranges: Ranges) -> Rules:
    """From outside: where any node answers for any endpoint, the way back must lead through it."""
    every = _picking(port, False)
    if not port.external_local:
        return (f"-j {_MARK_MASQ}", f"-j {every}")
    here = "-m addrtype --src-type LOCAL"
    return (
        UNMARK,  # a load balancer's address stands among cluster addresses
        f"-s {ranges.pod_cidr} -j {every}",
        f"{here} -j {_MARK_MASQ}",
        f"{here} -j {every}",
        *((f"-j {_picking(port, True)}",) if port.local_endpoints else ()),
    )


def from_outside(ranges: Ranges) -> str:
    """Marked in advance, and for all services at once: who is no pod and asks at a cluster address."""
    return f'! -s {ranges.cluster_cidr} -m comment --comment "at a cluster IP, and no pod" -j {_MARK_MASQ}'


def _host_ports(host_ports: Iterable[HostPort]) -> dict[str, Rules]:
    chains: dict[str, Rules] = {}
    lines = []
    for item in host_ports:
        comment = f'-m comment --comment "host port of {item.pod}"'
        name = _hashed("HP", f"{item.pod}|{item.protocol}|{item.address}|{item.port}|{item.target}")
        address = f"-d {item.address}/32 " if item.address else ""
        lines.append(f"{address}-p {item.protocol} {comment} -m {item.protocol} --dport {item.port} -j {name}")
        chains[name] = (
            f"-s {item.target.address}/32 {comment} -j {_MARK_MASQ}",
            # A pod cannot answer to a loopback address.
            f"-s 127.0.0.0/8 {comment} -j {_MARK_MASQ}",
            _translation(item.protocol, item.target, f" {comment}"),
        )
    return {HOSTPORTS: tuple(lines), **chains}


def hairpin(address: str) -> str:
    """An endpoint that reaches itself by way of a service must see another source than its own."""
    return f"-s {address}/32 -d {address}/32 {_MASQUERADE}"


def _postrouting() -> Rules:
    unmarked = f"-m mark ! --mark {MARK}"
    return (
        f"{unmarked} -m conntrack --ctstate DNAT -j {HAIRPINS}",
        f"{unmarked} -j RETURN",
        # The mark goes, so that a packet that passes here twice (a tunnel) is not masqueraded twice.
        f"-j MARK --set-xmark {MARK.split('/')[0]}/0x0",
        _MASQUERADE,
    )


def _input() -> Rules:
    guard = '-m comment --comment "node ports answer on localhost: keep others out of it"'
    return (
        f"! -s 127.0.0.0/8 -d 127.0.0.0/8 {guard} -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
        f"-m conntrack --ctstate NEW -j {NODEPORTS}",
    )


def _forward(cluster_cidr: str) -> Rules:
    return (
        f"-m conntrack --ctstate NEW -j {SERVICES}",
        # A late packet of a closed connection would leave with an address that was never translated back.
        "-m conntrack --ctstate INVALID -j DROP",
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        f"-m mark --mark {MARK} -j ACCEPT",
        f"-s {cluster_cidr} -j ACCEPT",
        f"-d {cluster_cidr} -j ACCEPT",
    )


def _portal(port: ServicePort, what: str, address: str = "") -> str:
    comment = f'-m comment --comment "{port.title} {what}"'
    target = address or port.cluster_ip
    return f"-d {target}/32 -p {port.protocol} {comment} -m {port.protocol} --dport {port.port}"


def _node_port(port: ServicePort, what: str, match: str = "") -> str:
    comment = " ".join(filter(None, (f'-m comment --comment "{port.title} {what}"', match)))
    return f"-p {port.protocol} {comment} -m {port.protocol} --dport {port.node_port}"


def _chain(kind: str, port: ServicePort, endpoint: Endpoint | None = None) -> str:
    # Not the title alone: a port of TCP and one of UDP may share their name.
    return _hashed(kind, f"{port.title}|{port.protocol}|{port.port}" + (f"|{endpoint}" if endpoint else ""))


def _hashed(kind: str, identity: str) -> str:
    """PODPLANE-<kind>-<hash>: within the kernel's 28 characters, and the same for the same thing on every node."""
    digest = base64.b32encode(hashlib.sha256(identity.encode()).digest()).decode()
    return f"{PREFIX}{kind}-{digest[:14]}"
