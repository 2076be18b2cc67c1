"""The table `podplane-services`: its maps, its chains, and their names. Pure; README.md draws the packet's path.

Owns the layout: however many services there are, a packet meets a fixed number of rules, and a change of a service
changes elements of maps. Chains are shared by all services with the same number of endpoints (pick-3); only session
affinity needs some of its own. Rules hold no anonymous sets. Source: the layout of nft(8)'s maps; nft 1.0.6 takes a
port from a map only after `meta l4proto`.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping

from nodeagent.proxy import elements
from nodeagent.proxy.elements import Container, container
from nodeagent.proxy.mode import MASQUERADE_MARK, Ranges

TABLE = "podplane-services"
Rules = tuple[str, ...]

PLAIN = 4
"""With so many endpoints or fewer, a place that has nothing special is in a set for its number of endpoints: after a
change of an element that leads to a chain the kernel follows all of them again, of an element of a set none."""
LOCAL_SLOTS = 32768
"""Slots from here on are those of this node's endpoints, for policies of Local."""
_MARK = f"meta mark set meta mark or {MASQUERADE_MARK:#x}"
_UNMARK = f"meta mark set meta mark and {~MASQUERADE_MARK & 0xFFFFFFFF:#x}"


PROTOCOLS = ("tcp", "udp")


@functools.cache
def backends(protocol: str, *, node: bool) -> str:
    """The name of the map of endpoints."""
    return f"{'node-' if node else ''}backends-{protocol}"


@functools.cache
def frontends(*, node: bool, count: int = 0) -> str:
    """Where places are; count: those that lead to so many endpoints and are plain."""
    return f"{'node-ports' if node else 'portals'}{f'-{count}' if count else ''}"


_PLAIN = range(1, PLAIN + 1)
CONTAINERS: Mapping[str, Container] = {
    made.name: made
    for made in (
        # Where a port is asked for, by address and by the node's own port: with so many endpoints, or → who decides.
        *(container(frontends(node=False, count=count), "ip proto port") for count in _PLAIN),
        *(container(frontends(node=True, count=count), "proto port") for count in _PLAIN),
        container("portals", "ip proto port", "verdict"),
        container("node-ports", "proto port", "verdict"),
        # For ports with a policy of Local: who decides for those inside, and for those outside.
        container("inside", "ip proto port", "verdict"),
        container("node-inside", "proto port", "verdict"),
        container("outside", "ip proto port", "verdict"),
        container("node-outside", "proto port", "verdict"),
        *(
            elements.backends(backends(protocol, node=node), protocol, addressed=not node)
            for protocol in PROTOCOLS
            for node in (False, True)
        ),
        # Ports without endpoints.
        container("refused", "ip proto port"),
        container("node-refused", "proto port"),
        # Ports with session affinity → who remembers.
        container("records", "ip proto port", "verdict"),
        container("node-records", "proto port", "verdict"),
        container("host-ports", "proto port", "target"),
        container("host-ports-at", "ip proto port", "target"),
        container("hairpins", "ip ip"),
    )
}
"""What is there whichever services there are."""

FRONTENDS = frozenset(
    {
        *(frontends(node=node, count=count) for count in (0, *_PLAIN) for node in (False, True)),
        "refused",
        "node-refused",
    }
)
"""Each service has an element in one of these for every place where it is asked for; it bears the service's name."""

_ADDRESSED = "ip daddr . meta l4proto . th dport"
_OWN = "meta l4proto . th dport"
_ASKED = "ct original ip daddr . meta l4proto . ct original proto-dst"
_OWN_ASKED = "meta l4proto . ct original proto-dst"


def affinity_map(name: str, seconds: int) -> Container:
    """Clients → the endpoint that they were given last."""
    flags = f"flags dynamic,timeout; timeout {seconds}s;"
    return Container(name, ("ip",), "target", f"type ipv4_addr : ipv4_addr . inet_service; {flags}")


def endpoint_set(name: str) -> Container:
    return container(name, "ip port")


def base(ranges: Ranges) -> dict[str, Rules]:
    """The chains that are there whichever services there are. A base chain begins with its hook."""
    return {
        "prerouting": ("type nat hook prerouting priority -100", "jump services"),
        "output": ("type nat hook output priority -100", "jump services"),
        "services": _services(ranges),
        "own": _own(),
        "local": _local(ranges, _ADDRESSED, "inside", "outside"),
        "node-local": _local(ranges, _OWN, "node-inside", "node-outside"),
        "host-ports": (
            # A pod cannot answer to a loopback address.
            f"ip saddr 127.0.0.0/8 {_MARK}",
            *(f"meta l4proto {name} dnat ip to {_ADDRESSED} map @host-ports-at" for name in PROTOCOLS),
            *(f"meta l4proto {name} dnat ip to {_OWN} map @host-ports" for name in PROTOCOLS),
            _UNMARK,
        ),
        "postrouting": _postrouting(),
        "filter-input": (
            "type filter hook input priority 0",
            # Node ports answer on localhost: keep others out of it.
            "ip saddr != 127.0.0.0/8 ip daddr 127.0.0.0/8 ct state new,invalid ct status and 0x20 == 0 drop",
            f"ct state new {_ADDRESSED} @refused goto refuse",
            f"ct state new fib daddr type local {_OWN} @node-refused goto refuse",
        ),
        "filter-forward": (
            "type filter hook forward priority 0",
            f"ct state new {_ADDRESSED} @refused goto refuse",
            # A late packet of a closed connection would leave with an address that was never translated back.
            "ct state invalid drop",
        ),
        "filter-output": ("type filter hook output priority 0", f"ct state new {_ADDRESSED} @refused goto refuse"),
        "refuse": ("reject with icmp type port-unreachable",),
        # Before the source is translated, and after the destination was; an endpoint may be the node itself.
        "record-out": ("type filter hook postrouting priority 99", "ct state new ct status dnat jump record"),
        "record-in": ("type filter hook input priority 99", "ct state new ct status dnat jump record"),
        "record": tuple(
            f"meta l4proto {name} {asked} vmap @{container}"
            for asked, container in ((_ASKED, "records"), (_OWN_ASKED, "node-records"))
            for name in PROTOCOLS
        ),
    }


def _services(ranges: Ranges) -> Rules:
    return (
        # Marked in advance: whoever is led to an endpoint from here on comes back through this node.
        f"ip saddr != {ranges.cluster_cidr} {_MARK}",
        *_picked(_ADDRESSED, node=False),
        _UNMARK,
        # After these, so that a service's own address wins where it is an address of the node as well.
        "fib daddr type local goto own",
    )


def _own() -> Rules:
    """For what is sent to an address of the node."""
    return (_MARK, *_picked(_OWN, node=True), _UNMARK, "goto host-ports")


def _picked(asked: str, *, node: bool) -> Rules:
    return (
        *(f"{asked} @{frontends(node=node, count=n)} goto {pick_chain(n, node=node, local=False)}" for n in _PLAIN),
        f"{asked} vmap @{frontends(node=node)}",
    )


def _local(ranges: Ranges, asked: str, inside: str, outside: str) -> Rules:
    """For externalTrafficPolicy Local: pods and the node itself are answered by all endpoints."""
    return (
        f"ip saddr {ranges.pod_cidr} {_UNMARK} {asked} vmap @{inside}",
        f"fib saddr type local {asked} vmap @{inside}",
        _UNMARK,
        f"{asked} vmap @{outside}",
    )


def _postrouting() -> Rules:
    marked = f"meta mark and {MASQUERADE_MARK:#x} == {MASQUERADE_MARK:#x}"
    return (
        "type nat hook postrouting priority 100",
        # The mark goes, so that a packet that passes here twice (a tunnel) is not masqueraded twice.
        f"{marked} {_UNMARK} masquerade fully-random",
        # An endpoint that reaches itself by way of the service must see another source than its own.
        "ct status dnat ip saddr . ip daddr @hairpins masquerade fully-random",
    )


@functools.lru_cache(1024)
def pick_chain(count: int, *, node: bool, local: bool) -> str:
    """The chain that takes one of so many endpoints with equal chance; its rules follow from its name."""
    return f"{'node-' if node else ''}{'local-' if local else ''}pick-{count}"


USUAL_PICKS = tuple(
    pick_chain(count, node=node, local=local)
    for count in range(1, 17)
    for node in (False, True)
    for local in (False, True)
)
"""Chains that stand before somebody needs them: with many services the kernel takes 20 ms to check a new one."""


def is_pick(chain: str) -> bool:
    return chain.removeprefix("node-").removeprefix("local-").startswith("pick-")


def pick_rules(chain: str) -> Rules:
    """The rules of a chain that is_pick."""
    node, local = chain.startswith("node-"), "local-" in chain
    offset = f" offset {LOCAL_SLOTS}" if local else ""
    slot = f"numgen random mod {chain.rpartition('-')[2]}{offset}"
    address = "" if node else "ip daddr . "
    return tuple(
        f"meta l4proto {name} dnat ip to {address}{name} dport . {slot} map @{backends(name, node=node)}"
        for name in PROTOCOLS
    )


def stamp(chains: Mapping[str, Rules], containers: Iterable[Container]) -> str:
    """What the table's comment says of its layout: a table of another one is not adopted."""
    text = repr(sorted(chains.items())) + repr(sorted((item.name, item.declaration) for item in containers))
    return f"podplane {hashlib.sha256(text.encode()).hexdigest()[:16]}"
