"""The node's iptables rules, kept as wanted: what stands, what others have changed.

Owns every PODPLANE-* chain of nat and filter and the jumps to them; foreign rules stay as they are, byte for byte. A
restarted agent adopts what stands: it writes only what differs, and each table changes at once or not at all, so that
no packet falls between. Fails with RulesRefused and RulesUnavailable; belief is then thrown away and read again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from nodeagent.proxy.changes import Changes, answering, deaf
from nodeagent.proxy.iptables import bases, legacy
from nodeagent.proxy.iptables.backend import TABLES, Backend, Restoring, detect, others
from nodeagent.proxy.iptables.commits import Commits, tells
from nodeagent.proxy.iptables.rules import JUMPS, Rules, Tables
from nodeagent.proxy.iptables.text import Observed, parse, restore
from nodeagent.proxy.mode import RulesRefused, RulesUnavailable

log = logging.getLogger(__name__)

_NOTHING: Tables = {}
_FEW = 1000
"""Lines up to which a writing is over with its commits. Of more the kernel would have to tell too much."""
_RACES = 3
"""Times that rules are written before a refusal counts although somebody else changed rules meanwhile."""


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
        self._made: frozenset[bases.Base] = frozenset()
        self._changes: Changes | None = None
        self._commits: Commits | None = None
        self._ending: asyncio.Task[None] | None = None
        """Of the process whose rules the kernel has taken."""

    @classmethod
    async def open(cls) -> Iptables:
        """Choose the flavour; rules of ours under another one go. Raises RulesUnavailable, RulesRefused."""
        chosen = await detect()
        for other in await others(chosen):
            await clean(other)
        return cls(chosen)

    def listen(self, heard: Callable[[], None]) -> None:
        """Call heard when somebody changes rules, until deafen(). Only nft tells. Raises RulesUnavailable."""
        if self._changes is None and self.backend.flavour == "nft":
            try:
                self._changes = Changes(heard)
            except OSError as error:
                raise RulesUnavailable(f"cannot listen for changes of rules: {error}") from error

    async def close(self) -> None:
        """Wait for the last process and give up sockets. What stands stays; not for use afterwards."""
        try:
            await self._ended()
        except RulesUnavailable as error:
            log.warning("%s", error)
        finally:
            for opened in (self._changes, self._commits):
                if opened is not None:
                    opened.close()
            self._changes = self._commits = None

    @property
    def certain(self) -> bool:
        """Whether it is known what stands. If not, somebody changed rules while we did: look again."""
        return self._present is not None

    @property
    def settled(self) -> bool:
        """Whether what was seen last is what is wanted."""
        return self._present is not None and not restore(self._present, self._wanted)[0]

    async def found(self) -> Tables:
        """What of ours stands. Raises RulesRefused, RulesUnavailable."""
        return (await self._standing()).tables

    def respelled(self, found: Observed) -> Observed:
        """What somebody else has read, in our words; for any thread."""
        return self._in_our_words(found)

    async def apply(self, wanted: Tables) -> None:
        """Bring the kernel to wanted, writing only what differs. Raises RulesRefused, RulesUnavailable."""
        await self._ended()
        with answering(self._changes, lambda: self.written):
            for tries in range(_RACES, 0, -1):
                present = await self._standing()
                wanted = self._noted(wanted, present)
                text, touched = restore(present, wanted)
                try:
                    if text:
                        await self._write(text, len(touched), wanted)
                    break
                except RulesRefused:
                    # Somebody may have taken a rule that was to be replaced: then the fault is not in our rules.
                    if tries == 1 or self._look() == self._fingerprint:
                        raise
            self._wanted = wanted

    def _noted(self, wanted: Tables, present: Observed) -> Tables:
        """With the note of what is there because of us, as it stands or for the first time. Raises RulesUnavailable."""
        if self.backend.flavour != "nft":
            return wanted
        self._made |= bases.noted(present.tables)
        if present.empty:
            try:
                self._made |= bases.missing()
            except OSError as error:
                raise RulesUnavailable(f"cannot look which chains there are: {error}") from error
        notes = bases.notes(self._made)
        return {table: {**chains, **notes.get(table, {})} for table, chains in wanted.items()}

    async def _standing(self) -> Observed:
        if self._present is None or self._look() != self._fingerprint:
            return await self._read()
        return self._present

    async def _write(self, text: str, transactions: int, wanted: Tables) -> None:
        before = self._look()
        undisturbed = before == self._fingerprint
        self._present = None  # until it is known what came of it
        self.written += text.count("\n")
        with deaf(self._changes):
            await self._give(text, transactions)
        # Only now: who changes rules from here on is heard.
        after = self._look()
        # nft counts transactions, of which a restore makes one per table: any more were somebody else's.
        if undisturbed and (self.backend.flavour != "nft" or after[0] <= before[0] + transactions):
            self._fingerprint = after
            self._present = Observed(wanted, dict.fromkeys(JUMPS, 1))

    async def _give(self, text: str, transactions: int) -> None:
        """Let iptables-restore write. It may be ending still afterwards, where the kernel tells when it has written."""
        if self._commits is None or not tells() or text.count("\n") > _FEW:
            await self.backend.apply(text)
            return
        try:
            with self._commits.heard():
                self._ending = await _taken(self._commits, await self.backend.begin(text), transactions)
        except OSError as error:
            raise RulesUnavailable(f"cannot hear whether the kernel has taken the rules: {error}") from error

    async def _ended(self) -> None:
        """Wait for the process that was last to write. Raises RulesUnavailable: it failed after all."""
        if self._ending is None:
            return
        try:
            await self._ending
        except (RulesRefused, RulesUnavailable) as error:
            self._present = None
            raise RulesUnavailable(f"after the kernel had taken its rules, {error}") from error
        finally:
            self._ending = None

    def _look(self) -> tuple[int, ...]:
        """What changes whenever rules do: nft's generation, or the size and shape of the legacy tables.

        Microseconds, and no process. A legacy rule that was replaced by one of equal size goes unseen.
        """
        try:
            if self.backend.flavour != "nft":
                return legacy.shape(TABLES)
            if self._commits is None:
                self._commits = Commits()
            return (self._commits.generation(),)
        except OSError as error:
            raise RulesUnavailable(f"cannot look at the {self.backend.flavour} rules: {error}") from error

    async def verify(self, *, thorough: bool = False) -> bool:
        """Look whether the rules stand, and mend them; cheap where nothing has changed. True: they were mended.

        thorough: read them even if the fingerprint is the same.
        """
        await self._ended()
        with answering(self._changes, lambda: self.written):
            present = await (self._read() if thorough else self._standing())
            text, touched = restore(present, self._wanted)
            if not text:
                return False
            await self._write(text, len(touched), self._wanted)
            await self._learn()
            return True

    async def _learn(self) -> None:
        """Take note of rules that the kernel spells otherwise than we do, or each look would find them changed."""
        observed = await self._observe()
        for table, chains in self._wanted.items():
            for chain, rules in chains.items():
                found = observed.tables.get(table, {}).get(chain, ())
                # The number tells a spelling from a rule that somebody took away just now.
                if found != rules and len(found) == len(rules):
                    self._spelled[table, chain] = (rules, found)
        self._present = self._in_our_words(observed)

    async def _read(self) -> Observed:
        self._present = self._in_our_words(await self._observe())
        return self._present

    async def _observe(self) -> Observed:
        before = self._look()
        found = parse(await self.backend.saved())
        self._fingerprint = before  # a change during the reading shows as a difference at the next look
        return found

    def _in_our_words(self, found: Observed) -> Observed:
        tables = {table: self._respelled(table, chains) for table, chains in found.tables.items()}
        return Observed(tables, found.jumps, found.strays)

    def _respelled(self, table: str, chains: Mapping[str, Rules]) -> dict[str, Rules]:
        spelled = ((chain, rules, self._spelled.get((table, chain))) for chain, rules in chains.items())
        return {chain: known[0] if known and known[1] == rules else rules for chain, rules, known in spelled}


async def _taken(commits: Commits, restoring: Restoring, count: int) -> asyncio.Task[None] | None:
    """Wait until the process has made so many commits, or has ended. Returns the end where that is to come.

    Raises what the end does, and OSError; then the process is gone.
    """
    end, told = restoring.end, asyncio.create_task(commits.by(restoring.pid, count), name="commits of iptables-restore")
    left = {end, told}
    try:
        await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        for first in (end, told):
            if first.done():
                first.result()
        left.remove(end)
    finally:
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
    return None if end.done() else end


async def clean(backend: Backend) -> None:
    """Remove every chain and jump of ours. Raises RulesRefused, RulesUnavailable."""
    present = parse(await backend.saved())
    text, _ = restore(present, _NOTHING)
    if text:
        await backend.apply(text)
    if made := bases.noted(present.tables):
        try:
            bases.remove(made)
        except OSError as error:
            raise RulesUnavailable(f"cannot remove chains that are there because of us: {error}") from error
