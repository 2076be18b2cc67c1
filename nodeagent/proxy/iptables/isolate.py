"""Programming many services although some are refused: finds which ones, and keeps what these had before.

Owns the search and nothing else: it is given how to apply. By the line that iptables complains of where there is one;
by halves where there is none. Fails with RulesRefused or RulesUnavailable where no single service is to blame.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from nodeagent.proxy.iptables.adopt import owner
from nodeagent.proxy.iptables.rules import Part, Tables
from nodeagent.proxy.mode import RulesRefused, RulesUnavailable
from nodeagent.proxy.services import ServicePort

_TRIES = 64
"""Refusals after which it is no longer a matter of single services."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one service has: its ports (None: not known, the rules were found), and the rules that these make."""

    ports: tuple[ServicePort, ...] | None
    part: Part


Entries = Mapping[str, Entry]


class Isolator:
    """One application of many services."""

    def __init__(self, apply: Callable[[Tables], Awaitable[None]], assemble: Callable[[Entries], Tables]) -> None:
        self._apply = apply
        self._assemble = assemble
        self._left = _TRIES

    async def apply(self, standing: Entries, wanted: Entries) -> tuple[dict[str, Entry], dict[str, str]]:
        """Return what stands afterwards, and the words of refusal by service. Raises what apply does."""
        errors: dict[str, str] = {}
        trial = dict(wanted)
        while True:
            try:
                await self._try(trial)
            except RulesRefused as error:
                key = _owner(error.line, trial)
                if key is None or key in errors:
                    return await self._by_halves(standing, trial, errors)
                errors[key] = str(error)
                _keep(trial, standing, key)
            else:
                return trial, errors

    async def _by_halves(
        self, standing: Entries, wanted: Entries, errors: dict[str, str]
    ) -> tuple[dict[str, Entry], dict[str, str]]:
        # Each trial is what stands but for one group: no service loses its rules to the search for a bad one.
        current = {key: wanted[key] if _same(entry, wanted.get(key)) else entry for key, entry in standing.items()}
        changed = sorted(key for key in {*standing, *wanted} if current.get(key) is not wanted.get(key))
        groups = [changed]
        while groups:
            group = groups.pop()
            trial = dict(current)
            for key in group:
                _keep(trial, wanted, key)
            try:
                await self._try(trial)
            except RulesRefused as error:
                if not group:
                    raise
                if len(group) == 1:
                    errors[group[0]] = str(error)
                else:
                    groups += [group[: len(group) // 2], group[len(group) // 2 :]]
            else:
                current = trial
        return current, errors

    async def _try(self, entries: Entries) -> None:
        try:
            await self._apply(self._assemble(dict(entries)))
        except RulesRefused:
            self._left -= 1
            if self._left < 0:
                raise RulesUnavailable(
                    f"the rules were refused {_TRIES} times over: no single service is at fault"
                ) from None
            raise


def _keep(entries: dict[str, Entry], source: Entries, key: str) -> None:
    """Let key have what it has in source."""
    if key in source:
        entries[key] = source[key]
    else:
        entries.pop(key, None)


def _same(one: Entry, other: Entry | None) -> bool:
    return other is not None and one.part == other.part


def _owner(line: str, entries: Entries) -> str | None:
    """The service that a line belongs to: by its chain, or by its comment in a chain that all share."""
    chain = line.lstrip(":").removeprefix("-A ").split(" ", 1)[0]
    for key, entry in entries.items():
        if chain in entry.part.chains:
            return key
    found = owner(line)
    return found if found in entries else None
