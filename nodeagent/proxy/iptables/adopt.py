"""Which rules in the kernel belong to which service: what a restarted agent takes over. Pure.

A service's lines in the chains that all share name it in their comments; its own chains are where these lines lead,
and its endpoints where those lead. What belongs to no service is left out: it goes with the first rules that are
written. Cannot fail.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from nodeagent.proxy.iptables.rules import (
    HAIRPINS,
    NODEPORTS,
    OWN_KINDS,
    PREFIX,
    SERVICES,
    Part,
    Rules,
    Tables,
    hairpin,
)

_COMMENT = re.compile(r'--comment "?([^" :/]+/[^" :]+)')
_HAIRPIN = re.compile(hairpin("([0-9.]+)"))
_ENDPOINT = re.compile(r"-j DNAT --to-destination ([0-9.]+):")
TARGET = re.compile(rf"-j ({PREFIX}(?:{'|'.join(OWN_KINDS)})-\S+)")


def owner(rule: str) -> str | None:
    """The namespace/name of the service whose rule it is, by its comment."""
    found = _COMMENT.search(rule)
    return found[1] if found else None


def reaching_itself(rule: str) -> str | None:
    """The address of the endpoint whose rule in HAIRPINS it is."""
    found = _HAIRPIN.fullmatch(rule)
    return found[1] if found and rule == hairpin(found[1]) else None


def parts(tables: Tables) -> dict[str, Part]:
    """What each service has in these tables."""
    nat, filters = tables.get("nat", {}), tables.get("filter", {})
    portals, node_ports = _by_owner(nat.get(SERVICES, ())), _by_owner(nat.get(NODEPORTS, ()))
    refused, refused_ports = _by_owner(filters.get(SERVICES, ())), _by_owner(filters.get(NODEPORTS, ()))
    hairpins = frozenset(filter(None, map(reaching_itself, nat.get(HAIRPINS, ()))))
    found = {}
    for key in {**portals, **node_ports, **refused, **refused_ports}:
        lines = portals.get(key, ()), node_ports.get(key, ())
        chains = _chains(nat, (*lines[0], *lines[1]))
        ends = {address for rules in chains.values() for rule in rules for address in _ENDPOINT.findall(rule)}
        found[key] = Part(chains, *lines, refused.get(key, ()), refused_ports.get(key, ()), hairpins & ends)
    return found


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
