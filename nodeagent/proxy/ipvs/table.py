"""The nftables side of the ipvs mode: one table of our own, and what changes in it, as values and in nft's words. Pure.

    from outside or a pod ► prerouting ─┬─ a cluster address, asked from outside the pods' range: mark
    from the node itself  ► output ─────┴─ node port, load balancer, host port: DNAT, or to the port's chain
                                │ routing: the service addresses are the dummy device's, and so the node's own
                                ▼
                      own, input      what has no virtual server is refused or dropped; localhost is closed to others
                                ▼
                          IPVS (NAT) ─► postrouting   marked, or a pod that reaches itself: masquerade

Sets and maps hold what services add, one lookup for each packet that opens a connection; a service's elements bear its
name as comment, by which a restarted agent knows them. Owns the table `ip podplane-ipvs` and nothing else. Cannot fail.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network

from nodeagent.proxy.elements import Changes, Container, Value, backends, container, spelled
from nodeagent.proxy.ipvs.plan import PLAIN_SLOTS, SLOTS, Elements
from nodeagent.proxy.mode import MASQUERADE_MARK, Ranges

TABLE = "podplane-ipvs"

_PORT, _AT, _PROTOCOLS = "proto port", "ip proto port", ("tcp", "udp")
CONTAINERS: Mapping[str, Container] = {
    made.name: made
    for made in (
        container("addresses", "ip"),
        container("served", _AT),
        container("closed", _AT, "verdict"),
        container("closed_ports", _PORT, "verdict"),
        container("balanced", _AT, "verdict"),
        container("node_ports", _PORT, "verdict"),
        # The cluster address and port of what has no chain of its own.
        container("forwarded_at", _AT, "target"),
        container("forwarded_ports", _PORT, "target"),
        # Node ports on 127.0.0.1: how many slots they have, and where each leads.
        *(container(f"loopback_{size}", _PORT) for size in range(1, PLAIN_SLOTS + 1)),
        container("loopback", _PORT, "verdict"),
        *(backends(f"loopback_{protocol}", protocol, addressed=False) for protocol in _PROTOCOLS),
        container("host_ports", _PORT, "verdict"),
        container("host_ports_at", _AT, "verdict"),
        container("themselves", "ip ip"),
    )
}
_WHERE, _NUMBER = "ip daddr . meta l4proto . th dport", "meta l4proto . th dport"


@functools.lru_cache(maxsize=1)
def base(ranges: Ranges) -> str:
    """The table without any service, in place of what stands."""
    lines = [f"table ip {TABLE}", f"delete table ip {TABLE}", f"table ip {TABLE} {{"]
    filled = {"themselves": _themselves(ranges.pod_cidr)}
    for name, made in CONTAINERS.items():
        lines.append(f"{made.kind} {name} {{ {made.declaration} {filled.get(name, '')} }}")
    for name, rules in chains(ranges).items():
        lines += [f"chain {name} {{", *rules, "}"]
    return "\n".join([*lines, "}"]) + "\n"


def removal() -> str:
    """What takes the table away, whether it is there or not."""
    return f"table ip {TABLE}\ndelete table ip {TABLE}\n"


def _themselves(pod_cidr: str) -> str:
    pods = IPv4Network(pod_cidr)
    # As guard.py: no pod ever has the first two addresses or the last one.
    owners = [pods[index] for index in range(2, pods.num_addresses - 1)]
    return f"elements = {{ {', '.join(f'{ip} . {ip}' for ip in owners)} }};" if owners else ""


def chains(ranges: Ranges) -> Mapping[str, tuple[str, ...]]:
    mark = f"{MASQUERADE_MARK:#x}"
    masquerade = f"meta mark set meta mark or {mark}"
    unmark = f"meta mark set meta mark and {~MASQUERADE_MARK & 0xFFFFFFFF:#x}"
    local = "ip daddr != @addresses fib daddr type local"
    return {
        "refuse": ("reject",),
        "services": (
            f"ip saddr != {ranges.cluster_cidr} {_WHERE} @served {masquerade}",
            f"{_WHERE} vmap @balanced",
            f"{local} {_NUMBER} vmap @node_ports",
            f"{local} {_WHERE} vmap @host_ports_at",
            f"{local} {_NUMBER} vmap @host_ports",
        ),
        "forward_at": (masquerade, *_dnat(f"{_WHERE} map @forwarded_at")),
        "forward_port": ("ip daddr 127.0.0.0/8 goto loopback", masquerade, *_dnat(f"{_NUMBER} map @forwarded_ports")),
        "loopback": (
            masquerade,
            *(f"{_NUMBER} @loopback_{size} goto any_{size}" for size in range(1, PLAIN_SLOTS + 1)),
            f"{_NUMBER} vmap @loopback",
        ),
        **{f"any_{size}": _chosen(f"numgen random mod {size}") for size in SLOTS},
        **{f"same_{size}": _chosen(f"jhash ip saddr mod {size}") for size in SLOTS},
        "prerouting": ("type nat hook prerouting priority -100;", "jump services"),
        "output": ("type nat hook output priority -100;", "jump services"),
        # The node's own packets meet IPVS at once (priority -98), and there may be a virtual server that only drains.
        "own": (
            "type filter hook output priority -99;",
            f"ct state new {_WHERE} vmap @closed",
        ),
        "input": (
            "type filter hook input priority 0;",
            # Node ports answer on localhost, by route_localnet: keep others out of it.
            "ip saddr != 127.0.0.0/8 ip daddr 127.0.0.0/8 ct state != { established, related } ct status ! dnat drop",
            "ct state != new accept",
            f"{_WHERE} vmap @closed",
            f"{local} {_NUMBER} vmap @closed_ports",
            # Whatever listens on all addresses of this node is not to be reached by a service's.
            f"meta l4proto {{ tcp, udp }} ip daddr @addresses {_WHERE} != @served goto refuse",
        ),
        "postrouting": (
            "type nat hook postrouting priority 100;",
            # The mark goes, so that a packet that passes here twice (a tunnel) is not masqueraded twice.
            f"meta mark and {mark} != 0 {unmark} masquerade fully-random",
            "ip saddr . ip daddr @themselves masquerade fully-random",
        ),
    }


def _dnat(where: str) -> tuple[str, ...]:
    # nft 1.0.6 takes a port from a map only after the protocol.
    return tuple(f"meta l4proto {protocol} dnat ip to {where}" for protocol in _PROTOCOLS)


def _chosen(slot: str) -> tuple[str, ...]:
    return tuple(f"meta l4proto {name} dnat ip to {name} dport . {slot} map @loopback_{name}" for name in _PROTOCOLS)


@dataclass(frozen=True, slots=True)
class Update:
    """What one transaction does. base: the table without any service, which comes first, in place of what stands."""

    changes: Changes
    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """To be written anew."""
    gone: Collection[str] = ()
    """Chains that go."""
    base: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether it is of elements alone."""
        return not (self.base or self.chains or self.gone)

    @property
    def count(self) -> int:
        """Of elements, chains, rules, and lines of the base."""
        return self.changes.count + sum(map(len, self.chains.values())) + len(self.gone) + self.base.count("\n")

    @property
    def text(self) -> str:
        """As nft has it."""
        lines = list(_each("delete", [(name, key) for _, (name, key) in self.changes.gone]))
        for name, rules in self.chains.items():
            lines += [f"add chain ip {TABLE} {name}", f"flush chain ip {TABLE} {name}"]
            lines += [f"add rule ip {TABLE} {name} {rule}" for rule in rules]
        lines += _each("add", [(name, _spelled(name, key, value)) for _, (name, key), value in self.changes.added])
        for name in self.gone:
            lines += [f"flush chain ip {TABLE} {name}", f"delete chain ip {TABLE} {name}"]
        return self.base + "".join(f"{line}\n" for line in lines)


def changes(old: Elements, new: Elements) -> Changes:
    """What turns the elements from old to new."""
    return Changes(
        [(owner, key) for key, (_, owner) in old.items() if new.get(key) != old[key]],
        [(value[1], key, value) for key, value in new.items() if old.get(key) != value],
    )


def listed(addresses: Iterable[str]) -> Elements:
    """The entries of addresses, which several services may have."""
    return {("addresses", item): ("", "") for item in addresses}


def _each(verb: str, elements: Iterable[tuple[str, str]]) -> Iterator[str]:
    grouped: dict[str, list[str]] = {}
    for name, words in elements:
        grouped.setdefault(name, []).append(words)
    for name, items in grouped.items():
        yield f"{verb} element ip {TABLE} {name} {{ {', '.join(items)} }}"


def _spelled(name: str, key: str, value: Value) -> str:
    return spelled(key, value, is_map=bool(CONTAINERS[name].value))
