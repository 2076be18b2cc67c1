"""Which rules in the kernel belong to which service: what a restarted agent takes over. Pure.

A service's lines in the chains that all share name it in their comments; its own chains are where these lines lead.
What belongs to no service is left out: it goes with the first rules that are written. Cannot fail.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from nodeagent.proxy.iptables.rules import NODEPORTS, OWN_KINDS, PREFIX, SERVICES, Part, Rules, Tables

_COMMENT = re.compile(r'--comment "?([^" :/]+/[^" :]+)')
TARGET = re.compile(rf"-j ({PREFIX}(?:{'|'.join(OWN_KINDS)})-\S+)")


def owner(rule: str) -> str | None:
    """The namespace/name of the service whose rule it is, by its comment."""
    found = _COMMENT.search(rule)
    return found[1] if found else None


def parts(tables: Tables) -> dict[str, Part]:
    """What each service has in these tables."""
    nat, filters = tables.get("nat", {}), tables.get("filter", {})
    portals, node_ports = _by_owner(nat.get(SERVICES, ())), _by_owner(nat.get(NODEPORTS, ()))
    refused, refused_ports = _by_owner(filters.get(SERVICES, ())), _by_owner(filters.get(NODEPORTS, ()))
    return {
        key: Part(
            _chains(nat, (*portals.get(key, ()), *node_ports.get(key, ()))),
            portals.get(key, ()),
            node_ports.get(key, ()),
            refused.get(key, ()),
            refused_ports.get(key, ()),
        )
        for key in {**portals, **node_ports, **refused, **refused_ports}
    }


def _by_owner(rules: Rules) -> dict[str, Rules]:
    found: dict[str, list[str]] = {}
    for rule in rules:
        if key := owner(rule):
            found.setdefault(key, []).append(rule)
    return {key: tuple(own) for key, own in found.items()}


def _chains(nat: Mapping[str, Rules], rules: Rules) -> dict[str, Rules]:
    """The chains of services that these rules lead to, over however many jumps."""
    found: dict[str, Rules] = {}
    ahead = list(rules)
    while ahead:
        for chain in TARGET.findall(ahead.pop()):
            if chain in nat and chain not in found:
                found[chain] = nat[chain]
                ahead += nat[chain]
    return found
