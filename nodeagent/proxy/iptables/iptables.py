"""The iptables mode: services as chains, in kube-proxy's documented shape. See mode.py for what a mode promises.

Owns what each service has in the kernel. Never decides what a rule is (rules.py) nor how it gets there (kernel.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from nodeagent.proxy.inspection import Inspection
from nodeagent.proxy.iptables import adopt, lines, looking
from nodeagent.proxy.iptables.assembly import Assembly
from nodeagent.proxy.iptables.backend import detect, others
from nodeagent.proxy.iptables.isolate import Entry, Isolator
from nodeagent.proxy.iptables.kernel import Iptables, clean
from nodeagent.proxy.iptables.rules import Part, part
from nodeagent.proxy.iptables.text import parse
from nodeagent.proxy.mode import Last, Ranges, RulesUnavailable, Wanted
from nodeagent.proxy.obstacles import IPTABLES, LEGACY
from nodeagent.proxy.services import ServicePort

_THOROUGH = 60.0
"""Seconds between readings of all legacy rules, whose fingerprint does not tell of every change."""


async def open() -> IptablesMode:
    """Choose nft or legacy; rules of ours under the other one go."""
    iptables = await Iptables.open()
    try:
        return IptablesMode(iptables, adopt.parts(await iptables.found()))
    except BaseException:
        await iptables.close()
        raise


async def remove() -> None:
    """Take every chain and jump of ours away, in both flavours; nothing to do where iptables is not installed."""
    try:
        chosen = await detect()
    except RulesUnavailable:
        return
    for backend in (chosen, *await others(chosen)):
        await clean(backend)


class IptablesMode:
    """See mode.Mode."""

    name = "iptables"

    def __init__(self, iptables: Iptables, found: dict[str, Part]) -> None:
        self._iptables = iptables
        self._standing = {key: Entry(None, item) for key, item in found.items()}
        self._assembly = Assembly()
        self._ranges: Ranges | None = None
        self._last = Last()
        self._read_at = 0.0

    @property
    def written(self) -> int:
        return self._iptables.written

    @property
    def certain(self) -> bool:
        return self._iptables.certain

    async def prepare(self, ranges: Ranges) -> None:
        """Nothing: what stands is read when it is known what is wanted."""

    async def apply(self, wanted: Wanted) -> dict[str, str]:
        entries = self._entries(wanted)
        ranges = wanted.ranges
        isolator = Isolator(self._iptables.apply, lambda trial: self._assembly.of(trial, ranges, wanted.host_ports))
        self._standing, refused = await isolator.apply(self._standing, entries)
        self._ranges = ranges
        self._last.note(wanted, refused)
        return refused

    def _entries(self, wanted: Wanted) -> dict[str, Entry]:
        """What services are to have: the very same entries where nothing has changed."""
        services, ranges = wanted.services, wanted.ranges
        told = self._last.told(wanted) if ranges == self._ranges else None
        if told is not None and all(key in services and key in self._standing for key in told):
            return {**self._standing, **{key: Entry(services[key], part(services[key], ranges)) for key in told}}
        standing = self._standing if ranges == self._ranges else {}
        entries = {key: self._standing[key] for key in wanted.kept if key in self._standing}
        for key, ports in services.items():
            old = standing.get(key)
            made = old if old is not None and old.ports is ports else None
            entries[key] = made or Entry(ports, part(ports, ranges))
        # In one order always: rules that only change places are written anew.
        return dict(sorted(entries.items())) if wanted.kept else entries

    async def look(self) -> bool | None:
        now = time.monotonic()
        thorough = self._iptables.backend.flavour == "legacy" and now - self._read_at > _THOROUGH
        self._read_at = now if thorough else self._read_at
        return self._iptables.settled if await self._iptables.verify(thorough=thorough) else None

    def listen(self, heard: Callable[[], None]) -> None:
        self._iptables.listen(heard)

    async def inspect(self, service: str, ports: tuple[ServicePort, ...], ranges: Ranges) -> Inspection:
        backend = self._iptables.backend
        saved = await looking.saved(backend, service, lines.chains(ports, ranges))
        passed = LEGACY if backend.flavour == "legacy" else IPTABLES

        def compare() -> Inspection:
            found = lines.inspection(service, ports, ranges, self._iptables.respelled(parse(saved)))
            return replace(found, passed=passed)

        return await asyncio.to_thread(compare)

    async def close(self) -> None:
        await self._iptables.close()
