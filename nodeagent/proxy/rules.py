"""The iptables rules of a node, as values. Pure: service ports in, chains out; README.md draws the packet's path.

Owns the names PODPLANE-* and the shape (kube-proxy's documented one). Never runs a command and never says what has
changed: it always builds the whole. Rules are spelled as iptables-save prints them, so that what is in the kernel can
be compared as text. Cannot fail: services.py has refused what has no rule.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nodeagent.proxy.services import Endpoint, ServicePort

Rules = tuple[str, ...]
"""The rules of one chain, in order, without the leading `-A CHAIN`."""
Tables = Mapping[str, Mapping[str, Rules]]
"""table → chain → rules. Only chains of ours."""

PREFIX = "PODPLANE-"
MARK = "0x2000/0x2000"
"""Says "masquerade me" between the nat chains; one bit, and not kube-proxy's 0x4000."""

SERVICES, NODEPORTS = f"{PREFIX}SERVICES", f"{PREFIX}NODEPORTS"
"""The chains of both tables in which services have their lines."""
OWN_KINDS = ("SVC", "EXT", "SEP")
"""The chains of one service are named PODPLANE-<kind>-<hash>."""
_POSTROUTING = f"{PREFIX}POSTROUTING"
_MARK_MASQ, _FORWARD, _INPUT = f"{PREFIX}MARK-MASQ", f"{PREFIX}FORWARD", f"{PREFIX}INPUT"
_REFUSE = "-j REJECT --reject-with icmp-port-unreachable"
_MASQUERADE = "-j MASQUERADE --random-fully"


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
    """What one service adds: chains of its own in nat, and its lines in the chains that all share."""

    chains: Mapping[str, Rules] = field(default_factory=dict)
    portals: Rules = ()
    node_ports: Rules = ()
    refused: Rules = ()
    refused_node_ports: Rules = ()


def part(ports: Sequence[ServicePort], cluster_cidr: str) -> Part:
    """Build the rules of one service. cluster_cidr: the range of all pods, whose source needs no masquerade."""
    chains: dict[str, Rules] = {}
    portals, node_ports, refused, refused_node_ports = [], [], [], []
    for port in ports:
        if not port.endpoints:
            refused.append(f"{_portal(port, 'has no endpoints')} {_REFUSE}")
            if port.node_port:
                local = "-m addrtype --dst-type LOCAL"
                refused_node_ports.append(f"{_node_port(port, 'has no endpoints', local)} {_REFUSE}")
            continue
        chains |= _balance(port, cluster_cidr)
        portals.append(f"{_portal(port, 'cluster IP')} -j {_chain('SVC', port)}")
        if port.node_port:
            chains[_chain("EXT", port)] = _external(port)
            node_ports.append(f"{_node_port(port, 'node port')} -j {_chain('EXT', port)}")
    return Part(chains, tuple(portals), tuple(node_ports), tuple(refused), tuple(refused_node_ports))


def assemble(parts: Iterable[Part], pod_cidr: str, cluster_cidr: str) -> Tables:
    """Join the services' parts with what every node has. pod_cidr: this node's pods, masqueraded on their way out."""
    nat: dict[str, Rules] = {}
    portals: list[str] = []
    node_ports: list[str] = []
    refused: list[str] = []
    refused_node_ports: list[str] = []
    for item in parts:
        nat.update(item.chains)
        portals += item.portals
        node_ports += item.node_ports
        refused += item.refused
        refused_node_ports += item.refused_node_ports
    # Node ports come last, so that a service's own address wins where it is an address of the node as well.
    last = f'-m comment --comment "node ports, after every cluster IP" -m addrtype --dst-type LOCAL -j {NODEPORTS}'
    nat |= {
        SERVICES: (*portals, last),
        NODEPORTS: tuple(node_ports),
        _MARK_MASQ: (f"-j MARK --set-xmark {MARK}",),
        _POSTROUTING: _postrouting(pod_cidr, cluster_cidr),
    }
    filters = {
        SERVICES: tuple(refused),
        NODEPORTS: tuple(refused_node_ports),
        _INPUT: _input(),
        _FORWARD: _forward(cluster_cidr),
    }
    return {"nat": nat, "filter": filters}


def frontends(port: ServicePort) -> tuple[tuple[str | None, int], ...]:
    """Where the port is asked for: (address, port); no address for a node port, which has all of the node's."""
    node = ((None, port.node_port),) if port.node_port else ()
    return ((port.cluster_ip, port.port), *node)


def _balance(port: ServicePort, cluster_cidr: str) -> dict[str, Rules]:
    """The SVC chain, which takes each endpoint with equal chance, and one SEP chain for each endpoint."""
    service = _chain("SVC", port)
    outside = f"! -s {cluster_cidr} {_portal(port, 'from outside the cluster')} -j {_MARK_MASQ}"
    picks, chains = [outside], {}
    count = len(port.endpoints)
    for index, endpoint in enumerate(port.endpoints):
        target = _chain("SEP", port, endpoint)
        comment = f'-m comment --comment "{port.title} -> {endpoint}"'
        picks.append(f"{comment}{_chance(count - index)} -j {target}")
        chains[target] = (
            # An endpoint that reaches itself by way of the service must see another source than its own.
            f'-s {endpoint.address}/32 -m comment --comment "{port.title}" -j {_MARK_MASQ}',
            f'-p {port.protocol} -m comment --comment "{port.title}" -j DNAT --to-destination {endpoint}',
        )
    return {service: tuple(picks), **chains}


def _chance(remaining: int) -> str:
    """1 in `remaining`, in the kernel's 31 bits as iptables-save prints them; nothing for the last."""
    if remaining == 1:
        return ""
    return f" -m statistic --mode random --probability {round(2**31 / remaining) / 2**31:.11f}"


def _external(port: ServicePort) -> Rules:
    """From a node port: any node may answer for any endpoint, so that the way back must lead through it."""
    comment = f'-m comment --comment "{port.title} from outside"'
    return (f"{comment} -j {_MARK_MASQ}", f"{comment} -j {_chain('SVC', port)}")


def _postrouting(pod_cidr: str, cluster_cidr: str) -> Rules:
    leaving = '-m comment --comment "pods that leave the cluster"'
    return (
        f"-s {pod_cidr} ! -d {cluster_cidr} {leaving} {_MASQUERADE}",
        f"-m mark ! --mark {MARK} -j RETURN",
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


def _portal(port: ServicePort, what: str) -> str:
    comment = f'-m comment --comment "{port.title} {what}"'
    return f"-d {port.cluster_ip}/32 -p {port.protocol} {comment} -m {port.protocol} --dport {port.port}"


def _node_port(port: ServicePort, what: str, match: str = "") -> str:
    comment = " ".join(filter(None, (f'-m comment --comment "{port.title} {what}"', match)))
    return f"-p {port.protocol} {comment} -m {port.protocol} --dport {port.node_port}"


def _chain(kind: str, port: ServicePort, endpoint: Endpoint | None = None) -> str:
    """PODPLANE-<kind>-<hash>: within the kernel's 28 characters, and the same for the same port on every node."""
    # Not the title alone: a port of TCP and one of UDP may share their name.
    identity = f"{port.title}|{port.protocol}|{port.port}" + (f"|{endpoint}" if endpoint else "")
    digest = base64.b32encode(hashlib.sha256(identity.encode()).digest()).decode()
    return f"{PREFIX}{kind}-{digest[:14]}"
