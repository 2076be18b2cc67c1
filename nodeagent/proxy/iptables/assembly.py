"""All services' rules joined, again and again: what has not changed since the last time is not gone through anew. Pure.

Owns the memory of what was joined last. Never decides what a rule is (rules.py). Cannot fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nodeagent.proxy.iptables.rules import Part, Rules, Tables, assemble
from nodeagent.proxy.mode import Ranges
from nodeagent.proxy.services import HostPort


class Assembly:
    """A part is one that has not changed if it is the very same. Of 10,000, one changed takes 0.8 ms instead of 2.2."""

    def __init__(self) -> None:
        self._parts: Mapping[str, Part] = {}
        self._shared: tuple[Ranges, tuple[HostPort, ...]] | None = None
        self._tables: Tables = {}

    def of(self, parts: Mapping[str, Part], ranges: Ranges, host_ports: tuple[HostPort, ...] = ()) -> Tables:
        """What assemble() makes of these. parts by service, always in one order; never changed afterwards."""
        shared = (ranges, host_ports)
        chains = self._rewritten(parts) if self._shared == shared else None
        if chains is None:
            self._tables = assemble(parts.values(), ranges, host_ports)
        elif chains:
            self._tables = {**self._tables, "nat": {**self._tables["nat"], **chains}}
        self._parts, self._shared = parts, shared
        return self._tables

    def _rewritten(self, parts: Mapping[str, Part]) -> dict[str, Rules] | None:
        """The chains of services that have changed; None where something else has."""
        before, chains = self._parts, dict[str, Rules]()
        if len(before) != len(parts):
            return None
        for key, part in parts.items():
            old = before.get(key)
            if old is part:
                continue
            if old is None or old.chains.keys() != part.chains.keys() or replace(old, chains=part.chains) != part:
                return None
            chains.update(part.chains)
        return chains
