"""Which number a port's firewall mark has: its name's hash, or the next one that is free. Pure.

A port keeps its number until its service gives it up, over restarts of the agent as well: given is what to keep for
the next one. Without that, two names of one hash would change places when a restarted agent asks in another order,
and packets of one would be led to the other until all of it is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterable, Mapping

SLOTS = 1 << 18
"""Numbers, of which 0 is nobody's."""


def hashed(name: str) -> int:
    digest = hashlib.sha256(name.encode()).digest()
    return 1 + int.from_bytes(digest[:4], "big") % (SLOTS - 1)


class Marks:
    """Who has which slot: by service, by the port's name (plan.mark_names)."""

    def __init__(self, given: Mapping[str, Mapping[str, int]], first: Callable[[str], int] = hashed) -> None:
        """given: of an earlier agent. first: the slot to try first for a name."""
        self._given = {service: dict(slots) for service, slots in given.items()}
        self._taken = {slot for slots in given.values() for slot in slots.values()}
        self._first = first

    @property
    def given(self) -> Mapping[str, Mapping[str, int]]:
        """What is taken. A service without any is not in it; equal to an earlier one if nothing has changed."""
        return dict(self._given)

    def settle(self, service: str, names: Iterable[str]) -> Mapping[str, int]:
        """The slots of these names of the service, whose other ones are free from now on."""
        slots = self.find(service, names)
        self._taken.difference_update(self._given.pop(service, {}).values())
        self._taken.update(slots.values())
        if slots:
            self._given[service] = slots
        return slots

    def find(self, service: str, names: Iterable[str]) -> dict[str, int]:
        """The slots that settle() would give; changes nothing."""
        old = self._given.get(service, {})
        slots: dict[str, int] = {}
        for name in sorted(names):
            slots[name] = old[name] if name in old else self._free(self._first(name), slots.values())
        return slots

    def keep(self, services: Container[str]) -> None:
        """Free what others than these have."""
        for service in [service for service in self._given if service not in services]:
            self.settle(service, ())

    def _free(self, slot: int, more: Iterable[int]) -> int:
        taken = self._taken.union(more) if more else self._taken
        assert len(taken) < SLOTS - 1, "every mark is taken"
        while slot in taken:
            slot = slot % (SLOTS - 1) + 1
        return slot
