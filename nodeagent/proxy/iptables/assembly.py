"""All services' rules joined, again and again: what has not changed since the last time is not gone through anew. Pure.

Owns the memory of what was joined last. Never decides what a rule is (rules.py). Cannot fail.
"""

from __future__ import annotations

from dataclasses import replace

from nodeagent.proxy.iptables.isolate import Entries, Entry
from nodeagent.proxy.iptables.rules import Rules, Tables, assemble
from nodeagent.proxy.mode import Ranges
from nodeagent.proxy.services import HostPort


class Assembly:
    """An entry that is the very same has not changed. Of 10,000, one changed takes 0.7 ms instead of 2.2."""

    def __init__(self) -> None:
        self._entries: Entries = {}
        self._shared: tuple[Ranges, tuple[HostPort, ...]] | None = None
        self._tables: Tables = {}

    def of(self, entries: Entries, ranges: Ranges, host_ports: tuple[HostPort, ...] = ()) -> Tables:
        """What assemble() makes of these. entries: always in one order; never changed afterwards."""
        shared = (ranges, host_ports)
        chains = self._rewritten(entries) if self._shared == shared else None
        if chains is None:
            self._tables = assemble((entry.part for entry in entries.values()), ranges, host_ports)
        elif chains:
            self._tables = {**self._tables, "nat": {**self._tables["nat"], **chains}}
        self._entries, self._shared = entries, shared
        return self._tables

    def _rewritten(self, entries: Entries) -> dict[str, Rules] | None:
        """The chains of services that have changed; None where something else has."""
        had, chains = self._entries.get, dict[str, Rules]()
        if len(self._entries) != len(entries):
            return None
        for key in [key for key, entry in entries.items() if had(key) is not entry]:
            if (old := had(key)) is None or not _alike(old, entries[key]):
                return None
            chains.update(entries[key].part.chains)
        return chains


def _alike(one: Entry, other: Entry) -> bool:
    """But for what is in their chains."""
    old, new = one.part, other.part
    return old.chains.keys() == new.chains.keys() and replace(old, chains=new.chains) == new
