"""The nftables mode: one table of flat maps, O(1) for a packet and for a change. See mode.py for what it promises.

Owns what each service has in the table, and who has which address and port. Never decides what an element is (parts.py)
nor how it gets into the kernel (kernel.py), where everything that blocks happens in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from nodeagent.proxy.changes import Changes, answering, deaf
from nodeagent.proxy.inspection import Inspection
from nodeagent.proxy.mode import Ranges, RulesRefused, RulesUnavailable, Wanted
from nodeagent.proxy.nftables import kernel
from nodeagent.proxy.nftables.kernel import Blamed, Table
from nodeagent.proxy.nftables.library import Run, runner
from nodeagent.proxy.nftables.parts import Part, host_part, part, places
from nodeagent.proxy.nftables.table import TABLE
from nodeagent.proxy.services import HostPort, ServicePort

_HOST_PORTS = "host ports"
_MOST_REFUSED = 64
"""Refusals after which it is no longer a matter of single services."""


async def open() -> NftablesMode:
    """Raises RulesUnavailable."""
    try:
        return NftablesMode(runner())
    except OSError as error:
        raise RulesUnavailable(f"cannot speak to nftables: {error}") from error


async def remove() -> None:
    """Take the table away; nothing to do where nftables is not installed."""
    try:
        run = runner()
    except RulesUnavailable:
        return
    # Deleting what is not there is refused, and so is not made first.
    await asyncio.to_thread(run, f"add table ip {TABLE}\ndelete table ip {TABLE}\n")


class NftablesMode:
    """See mode.Mode."""

    name = "nftables"

    def __init__(self, run: Run) -> None:
        self._changes: Changes | None = None
        self._table = Table(run, lambda: deaf(self._changes))
        self._standing: dict[str, Part] = {}
        self._made: dict[str, tuple[tuple[ServicePort, ...], Part]] = {}
        self._made_host_ports: tuple[tuple[HostPort, ...], Part] = ((), Part())
        self._holders: dict[str, str] = {}

    @property
    def written(self) -> int:
        return self._table.written

    @property
    def certain(self) -> bool:
        return self._table.certain

    async def apply(self, wanted: Wanted) -> dict[str, str]:
        with answering(self._changes, lambda: self._table.written):
            trial = self._parts(wanted)
            if unknown := wanted.kept - self._standing.keys():
                trial |= await asyncio.to_thread(self._table.found, unknown, wanted.ranges)
            errors = self._claims(trial)
            await self._bring(trial, errors, wanted.ranges)
        if errors:
            self._holders = {place: key for key, item in trial.items() for place in places(item)}
        self._standing = trial
        return errors

    async def _bring(self, trial: dict[str, Part], errors: dict[str, str], ranges: Ranges) -> None:
        apart = False
        while True:
            try:
                return await asyncio.to_thread(self._table.bring, trial, ranges, apart=apart)
            except Blamed as refusal:
                if not apart:
                    apart = True
                    continue
                if refusal.owner not in trial or refusal.owner in errors or len(errors) >= _MOST_REFUSED:
                    raise
                errors[refusal.owner] = str(refusal)
                self._keep(trial, refusal.owner)

    def _parts(self, wanted: Wanted) -> dict[str, Part]:
        made = {}
        for key, ports in wanted.services.items():
            old = self._made.get(key)
            made[key] = old if old is not None and old[0] is ports else (ports, part(ports))
        self._made = made
        if self._made_host_ports[0] != wanted.host_ports:
            self._made_host_ports = (wanted.host_ports, host_part(wanted.host_ports))
        parts = {key: item for key, (_, item) in made.items()}
        parts |= {key: self._standing[key] for key in wanted.kept if key in self._standing}
        return {**parts, _HOST_PORTS: self._made_host_ports[1]}

    def _claims(self, trial: dict[str, Part]) -> dict[str, str]:
        """Refuse services that ask for a place that another one has."""
        errors = {}
        changed = [key for key in {**self._standing, **trial} if self._standing.get(key) is not trial.get(key)]
        for key in changed:
            for place in places(self._standing.get(key, Part())):
                if self._holders.get(place) == key:
                    del self._holders[place]
        for key in changed:
            mine = places(trial.get(key, Part()))
            if taken := next((place for place in mine if place in self._holders), None):
                errors[key] = f"{' '.join(taken.split(' . '))} is already that of {self._holders[taken]}"
                self._keep(trial, key)
            else:
                self._holders |= dict.fromkeys(mine, key)
        return errors

    def _keep(self, trial: dict[str, Part], key: str) -> None:
        """Let key have what it has."""
        if key in self._standing:
            trial[key] = self._standing[key]
        else:
            trial.pop(key, None)

    async def look(self) -> bool | None:
        with answering(self._changes, lambda: self._table.written):
            try:
                return await asyncio.to_thread(self._table.mend)
            except Blamed as refusal:
                raise RulesRefused(str(refusal), refusal.line) from None

    def listen(self, heard: Callable[[], None]) -> None:
        if self._changes is None:
            try:
                self._changes = Changes(heard)
            except OSError as error:
                raise RulesUnavailable(f"cannot listen for changes of rules: {error}") from error

    async def inspect(self, service: str, ports: tuple[ServicePort, ...], ranges: Ranges) -> Inspection:
        return await asyncio.to_thread(kernel.inspect, service, ports, ranges)

    async def close(self) -> None:
        if self._changes is not None:
            self._changes.close()
            self._changes = None
        self._table.close()
