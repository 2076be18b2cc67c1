"""The node's iptables rules, kept as wanted: what stands, what others have changed.

Owns every PODPLANE-* chain of nat and filter and the jumps to them; foreign rules stay as they are, byte for byte. A
restarted agent adopts what stands: it writes only what differs, and each table changes at once or not at all, so that
no packet falls between. Fails with RulesRefused and RulesUnavailable; belief is then thrown away and read again.
"""

from __future__ import annotations

from collections.abc import Mapping

from nodeagent.proxy.backend import Backend, detect, others
from nodeagent.proxy.rules import JUMPS, Rules, Tables
from nodeagent.proxy.text import Observed, parse, restore

_NOTHING: Tables = {}


class Iptables:
    """One node's rules. Not for concurrent use: its owner has one task."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.written = 0
        """Lines given to iptables-restore so far."""
        self._wanted: Tables = _NOTHING
        self._present: Observed | None = None
        self._fingerprint: tuple[int, ...] = ()
        self._spelled: dict[tuple[str, str], tuple[Rules, Rules]] = {}

    @classmethod
    async def open(cls) -> Iptables:
        """Choose the flavour; rules of ours under another one go. Raises RulesUnavailable, RulesRefused."""
        chosen = await detect()
        for other in await others(chosen):
            await _clean(other)
        return cls(chosen)

    async def apply(self, wanted: Tables) -> None:
        """Bring the kernel to wanted, writing only what differs. Raises RulesRefused, RulesUnavailable."""
        present = self._present
        if present is None or self.backend.fingerprint() != self._fingerprint:
            present = await self._read()
        text, touched = restore(present, wanted)
        if text:
            await self._write(text, len(touched), wanted)
        self._wanted = wanted

    async def _write(self, text: str, transactions: int, wanted: Tables) -> None:
        before = self.backend.fingerprint()
        undisturbed = before == self._fingerprint
        self._present = None  # until it is known what came of it
        self.written += text.count("\n")
        await self.backend.apply(text)
        after = self.backend.fingerprint()
        # nft counts transactions, of which a restore makes one per table: any more were somebody else's.
        if undisturbed and (self.backend.flavour != "nft" or after[0] <= before[0] + transactions):
            self._fingerprint = after
            self._present = Observed(wanted, dict.fromkeys(JUMPS, 1))

    async def verify(self, *, thorough: bool = False) -> bool:
        """Look whether the rules stand, and mend them; cheap where nothing has changed. True: they were mended.

        thorough: read them even if the fingerprint is the same.
        """
        if self._present is not None and not thorough and self.backend.fingerprint() == self._fingerprint:
            return False
        present = await self._read()
        text, touched = restore(present, self._wanted)
        if not text:
            return False
        await self._write(text, len(touched), self._wanted)
        await self._learn()
        return True

    async def _learn(self) -> None:
        """Take note of rules that the kernel spells otherwise than we do, or each look would find them changed."""
        observed = parse(await self.backend.saved())
        for table, chains in self._wanted.items():
            for chain, rules in chains.items():
                found = observed.tables.get(table, {}).get(chain, ())
                # The number tells a spelling from a rule that somebody took away just now.
                if found != rules and len(found) == len(rules):
                    self._spelled[table, chain] = (rules, found)
        self._present = None

    async def _read(self) -> Observed:
        before = self.backend.fingerprint()
        found = parse(await self.backend.saved())
        tables = {table: self._respelled(table, chains) for table, chains in found.tables.items()}
        self._present = Observed(tables, found.jumps, found.strays)
        self._fingerprint = before  # a change during the reading shows as a difference at the next look
        return self._present

    def _respelled(self, table: str, chains: Mapping[str, Rules]) -> dict[str, Rules]:
        spelled = ((chain, rules, self._spelled.get((table, chain))) for chain, rules in chains.items())
        return {chain: known[0] if known and known[1] == rules else rules for chain, rules, known in spelled}

    async def cleanup(self) -> None:
        """Remove every chain and jump of ours, of either flavour. Raises RulesRefused, RulesUnavailable."""
        for backend in (self.backend, *await others(self.backend)):
            await _clean(backend)
        self._present, self._wanted = None, _NOTHING


async def _clean(backend: Backend) -> None:
    text, _ = restore(parse(await backend.saved()), _NOTHING)
    if text:
        await backend.apply(text)
