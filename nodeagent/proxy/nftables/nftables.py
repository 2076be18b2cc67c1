"""The nftables mode: one table of flat maps, O(1) for a packet and for a change. See mode.py for what it promises.

Owns what each service has in the table, and who has which address and port. Never decides what an element is (parts.py)
nor how it gets into the kernel (kernel.py), where everything that blocks happens in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from nodeagent.garbage import uncollected
from nodeagent.proxy.changes import Changes, answering, deaf
from nodeagent.proxy.inspection import Inspection
from nodeagent.proxy.libnftables import Run, runner
from nodeagent.proxy.mode import Last, Ranges, RulesRefused, RulesUnavailable, Wanted
from nodeagent.proxy.nftables import kernel
from nodeagent.proxy.nftables.differences import HAIRPINS
from nodeagent.proxy.nftables.kernel import Blamed, Table
from nodeagent.proxy.nftables.parts import NOTHING, Part, host_part, part, places
from nodeagent.proxy.nftables.table import TABLE
from nodeagent.proxy.services import HostPort, ServicePort
from nodeagent.proxy.shares import Shares

_Asked = dict[str, tuple[Part, Part]]
"""By service: what it had, and wants."""
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
        self._last = Last()
        self._host_ports: tuple[HostPort, ...] | None = None
        self._shares = Shares(places, lambda place: place.replace(" . ", " "))

    @property
    def written(self) -> int:
        return self._table.written

    @property
    def certain(self) -> bool:
        return self._table.certain

    async def prepare(self, ranges: Ranges) -> None:
        await asyncio.to_thread(self._prepare, ranges)

    def _prepare(self, ranges: Ranges) -> None:
        with uncollected():
            self._table.prepare(ranges)

    async def apply(self, wanted: Wanted) -> dict[str, str]:
        with answering(self._changes, lambda: self._table.written):
            return await asyncio.to_thread(self._apply, wanted)

    def _apply(self, wanted: Wanted) -> dict[str, str]:
        """In one thread all of it: on a busy machine each change of threads is a wait for a core."""
        with uncollected():
            return self._bring_all(wanted)

    def _bring_all(self, wanted: Wanted) -> dict[str, str]:
        delta = self._delta(wanted)
        try:
            errors = self._bring(delta, wanted.ranges)
        except BaseException:
            self._shares.anew(self._table.parts)
            raise
        self._last.note(wanted, errors)
        self._host_ports = wanted.host_ports
        return errors

    def _bring(self, delta: dict[str, Part | None], ranges: Ranges) -> dict[str, str]:
        """Returns who was refused, and why: in delta they have what they had."""
        asked = {key: (self._table.parts.get(key, NOTHING), new or NOTHING) for key, new in delta.items()}
        errors: dict[str, str] = {}
        apart = False
        while True:
            errors = self._shares.exchange(asked, errors)
            if left := self._left(asked, errors, ranges):
                asked |= left
                continue
            for key in errors:
                delta[key] = asked[key][0]
            try:
                self._table.bring(delta, ranges, apart=apart)
                return errors
            except Blamed as refusal:
                if not apart:
                    apart = True
                    continue
                if refusal.owner not in delta or refusal.owner in errors or len(errors) >= _MOST_REFUSED:
                    raise
                errors[refusal.owner] = str(refusal)

    def _left(self, asked: _Asked, errors: dict[str, str], ranges: Ranges) -> _Asked:
        """What an earlier agent left of those who are refused: before the first change, it is theirs still."""
        unknown = [key for key in errors if asked[key][0] is NOTHING] if not self._table.parts else []
        found = self._table.found(unknown, ranges) if unknown else {}
        return {key: (item, asked[key][1]) for key, item in found.items()}

    def _delta(self, wanted: Wanted) -> dict[str, Part | None]:
        """What takes the place of what services have. One that has not changed costs a comparison at most."""
        had, services = self._table.parts, wanted.services
        changed = self._last.changed(wanted, had)
        delta: dict[str, Part | None] = {key: part(services[key]) for key in changed if key in services}
        if self._host_ports != wanted.host_ports:
            delta[_HOST_PORTS] = host_part(wanted.host_ports)
        stays = {*wanted.kept, _HOST_PORTS, HAIRPINS}
        delta |= {key: None for key in changed if key in had and key not in services and key not in stays}
        unknown = [key for key in wanted.kept if key not in had]  # not a set less another, which goes through both
        # First, since what they have in the kernel is theirs.
        return {**self._table.found(unknown, wanted.ranges), **delta} if unknown else delta

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
