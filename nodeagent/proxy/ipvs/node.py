"""One node's ipvs mode in the kernel: device, virtual servers and table, brought to what is wanted and kept there.

    more is wanted   addresses ─► virtual servers ─► table
    less is wanted                                   table ─► virtual servers ─► addresses

so that at no time a packet is led to what is not there. Owns the belief of what stands; it is thrown away where
anything fails, and the kernel is read anew. Blocks: for threads, one at a time. Fails with RulesRefused,
RulesUnavailable and OSError.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from nodeagent import netlink
from nodeagent.proxy.changes import ADDRESSES, RULES
from nodeagent.proxy.inspection import Inspection
from nodeagent.proxy.ipvs import adopt, device, kernel, lines, ruleset, servers, table
from nodeagent.proxy.ipvs.plan import Addresses, Front, Part, Server, Target, hash_of
from nodeagent.proxy.ipvs.ruleset import Ruleset
from nodeagent.proxy.ipvs.servers import Standing, Step
from nodeagent.proxy.ipvs.table import Update
from nodeagent.proxy.mode import Ranges, RulesRefused
from nodeagent.proxy.writer import Writer
from nodeagent.sandbox import sysctl

Parts = Mapping[str, Part]
"""By service, and the host ports' under a name that no service has."""
_SAVED = "ipvs.json"
"""In the run directory: the kernel's settings as they were before us."""


@dataclass(frozen=True, slots=True)
class Union:
    """Parts joined. No two of them have the same server or element."""

    servers: dict[Front, Server] = field(default_factory=dict)
    addresses: set[str] = field(default_factory=set)
    elements: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class Uses:
    """What several parts may have, and how many do; and the sum of their digests."""

    addresses: Counter[str] = field(default_factory=Counter)
    digest: int = 0

    def exchange(self, old: Iterable[Part], new: Iterable[Part]) -> None:
        """Some parts go, others come in their place."""
        for part in new:
            self.digest += part.digest
            self.addresses.update(part.addresses)
        for part in old:
            self.digest -= part.digest
            for item in part.addresses:
                self.addresses[item] -= 1
                if not self.addresses[item]:
                    del self.addresses[item]


def union(parts: Iterable[Part]) -> Union:
    made = Union()
    for part in parts:
        made.servers.update(part.servers)
        made.addresses.update(part.addresses)
        made.elements.update(part.elements)
        made.chains.update(part.chains)
    return made


@functools.lru_cache(maxsize=1)
def _shared_digest(ranges: Ranges, others: frozenset[str]) -> int:
    """Of what no part has. others: addresses that are left to the node's other links."""
    return hash_of(table.base(ranges) + "".join(sorted(others)))


class Node:
    """What stands in one network namespace."""

    def __init__(self, hertz: int, run: Path) -> None:
        """hertz: the kernel's. run: where its settings are kept. Raises RulesUnavailable, OSError."""
        self.hertz = hertz
        self._saved = run / _SAVED
        with contextlib.ExitStack() as stack:
            self._ipvs = kernel.Ipvs(hertz)
            stack.callback(self._ipvs.close)
            self._route = stack.enter_context(netlink.Socket())
            self._netfilter = stack.enter_context(ruleset.connect())
            self._writer = Writer()
            stack.callback(self._writer.close)
            self._sockets = stack.pop_all()
        self.deaf_to: Callable[[tuple[int, int]], AbstractContextManager[None]] = lambda _: contextlib.nullcontext()
        """Around changes of what a group is told of (changes.py), which are ours then."""
        self._lines = 0
        self._parts: Parts = {}
        self._ranges: Ranges | None = None
        self._index = 0
        self._others: frozenset[str] = frozenset()
        self._kept: dict[str, str] = {}
        self._standing: Standing = {}
        self._since: dict[tuple[Front, Target], float] = {}
        self._rules = self._believed()
        self._uses = Uses()
        self._is_known = False

    def close(self) -> None:
        """Let go of the sockets; what stands is noted, so that the next agent knows it again."""
        try:
            if self._is_known:
                self._note()
        finally:
            self._sockets.close()

    def _believed(self, digest: str = "", seen: str = "", written: int = 0) -> Ruleset:
        return Ruleset(self._netfilter, self._writer, digest, seen, written, lambda: self.deaf_to(RULES))

    @property
    def written(self) -> int:
        return self._ipvs.written + self._rules.written + self._lines

    @property
    def certain(self) -> bool:
        """Whether it is known what stands, but for what a look costs."""
        return self._is_known and self._rules.certain

    def forget(self) -> None:
        """Believe nothing of what stands."""
        self._is_known = False

    def found(self) -> Mapping[str, Part]:
        """What each service has in the kernel. Raises RulesUnavailable, RulesRefused, OSError."""
        if not ruleset.fingerprint(self._netfilter):
            return {}
        standing = self._ipvs.standing(ruleset.addresses(self._netfilter))
        elements = lines.listed(ruleset.read()).elements
        return adopt.parts(elements, adopt.chains(ruleset.text()), standing)

    def apply(self, parts: Parts, touched: Iterable[str], ranges: Ranges) -> dict[str, str]:
        """Bring the kernel to parts. Returns refusals by IPVS and of addresses, by service.

        touched: all those whose part is another one than it was, or is gone, and maybe others.
        """
        known = self._is_known and ranges == self._ranges
        self._is_known = False
        changed = [key for key in touched if self._parts.get(key) is not parts.get(key)]
        old = [self._parts[key] for key in changed if key in self._parts]
        new = {key: parts[key] for key in changed if key in parts}
        before, self._parts, self._ranges = self._parts, parts, ranges
        try:
            if known:
                self._uses.exchange(old, new.values())
                refused = self._change(union(old), new)
            else:
                refused = self._whole()
        except BaseException:
            self._parts = before
            raise
        self._is_known = True
        return refused

    def look(self) -> bool:
        """Look whether all stands, mend it, and let real servers go that are drained. True: it was mended."""
        ranges = self._ranges
        if ranges is None:
            return False
        self.let_go()
        self._is_known = False
        written = self.written
        self._whole()
        self._is_known = True
        return self.written > written

    def _change(self, old: Union, parts: Parts) -> dict[str, str]:
        """From old to the parts that have come in its place; what costs, costs for these alone."""
        new = union(parts.values())
        come = new.addresses - old.addresses - self._others
        # Not a set less all that are used: that goes through both.
        gone = {item for item in old.addresses if item not in self._uses.addresses} - self._others
        refused = self._put_addresses(come)
        fronts = {**old.servers, **new.servers}
        failed = self._perform(list(servers.additions(self._those(fronts), new.servers)))
        before, after = {**old.elements, **table.listed(gone)}, {**new.elements, **table.listed(come)}
        chains = {name: rules for name, rules in new.chains.items() if old.chains.get(name) != rules}
        update = Update(table.changes(before, after), chains, old.chains.keys() - new.chains.keys())
        if update.count:
            self._rules.write(update, self._digest())
        # As it stands after the additions: a virtual server whose real servers have all changed must not seem empty.
        there = self._those(fronts)
        failed |= self._perform(list(servers.removals(there, new.servers, self._since, time.monotonic())))
        self._note_leaving(new.servers)
        return _by_service(parts, failed, refused | self._take_addresses(gone))

    def _those(self, fronts: Iterable[Front]) -> Standing:
        return {front: self._standing[front] for front in fronts if front in self._standing}

    def _whole(self) -> dict[str, str]:
        """From whatever there is to all parts; nothing is written where it is right."""
        assert self._ranges is not None
        wanted, self._uses = union(self._parts.values()), Uses()
        self._uses.exchange((), self._parts.values())
        stale = self._open_device()
        kernel.set_up()
        have = device.addresses(self._route, self._index)
        # One that the node itself has, by another link, is not ours to take: its own programs are asked there too.
        self._others = have.others
        due = wanted.addresses - have.others
        refused = self._put_addresses(due - have.ours)
        self._standing = self._ipvs.standing(have.ours | wanted.addresses | stale)
        failed = self._perform(list(servers.additions(self._standing, wanted.servers)))
        if not self._rules.stands(digest := self._digest()):
            elements = {**wanted.elements, **table.listed(due)}
            self._rules.write(Update(table.changes({}, elements), wanted.chains, base=table.base(self._ranges)), digest)
        self._note()
        failed |= self._perform(list(servers.removals(self._standing, wanted.servers, self._since, time.monotonic())))
        self._since = {key: at for key, at in self._since.items() if key[0] in wanted.servers}
        self._note_leaving(wanted.servers)
        return _by_service(self._parts, failed, refused | self._take_addresses(have.ours - due))

    def _note_leaving(self, wanted: Mapping[Front, Server]) -> None:
        there = self._those(wanted)
        leaving = servers.leaving(there, wanted)
        for key in [key for key in self._since if key[0] in wanted and key not in leaving]:
            del self._since[key]
        for key in leaving:
            self._since.setdefault(key, time.monotonic())

    def let_go(self) -> None:
        """Remove real servers that are drained."""
        if not self._since or not self._is_known:
            return
        wanted = {front: server for part in self._parts.values() for front, server in part.servers.items()}
        fronts = {front for front, _ in self._since if front in wanted}
        found = self._ipvs.standing({front.address for front in fronts})
        there = {front: found[front] for front in fronts if front in found}
        self._perform(list(servers.removals(there, wanted, self._since, time.monotonic())))
        self._note_leaving({front: wanted[front] for front in fronts})

    def _open_device(self) -> set[str]:
        """Have the device. Returns the addresses of one that somebody has deleted: there are virtual servers left."""
        found = device.find(self._route)
        sysctl.save(self._saved, kernel.SETTINGS)
        if found is None:
            device.add(self._route)
            self._lines += 1
            found = device.find(self._route)
            assert found is not None
            self._index, self._kept = found
            return ruleset.addresses(self._netfilter)
        if self._index != found[0]:
            self._index, self._kept = found
            self._rules = self._believed(self._kept.get("rules", ""), self._kept.get("seen", ""), self._rules.written)
        return set()

    def _digest(self) -> str:
        """A number for the whole table."""
        assert self._ranges is not None
        shared = frozenset(self._others & self._uses.addresses.keys())
        return hex(_shared_digest(self._ranges, shared) + self._uses.digest)

    def _note(self) -> None:
        """Keep with the device what the table is and looks like, for a later look and for the next agent."""
        seen = {"rules": self._rules.digest, "seen": self._rules.note()}
        if seen.items() - self._kept.items():
            self._kept |= seen
            device.keep(self._route, self._kept)

    def _perform(self, steps: list[Step]) -> dict[Step, str]:
        refused = self._ipvs.perform(steps)
        done = [step for step in steps if step not in refused]
        there = self._those({step.front: None for step in done})
        for front in there:
            del self._standing[front]
        self._standing |= servers.after(there, done)
        return refused

    def _put_addresses(self, wanted: Set[str]) -> dict[str, str]:
        if not wanted:
            return {}
        self._lines += len(wanted)
        with self.deaf_to(ADDRESSES):
            return device.put(self._route, self._index, wanted)

    def _take_addresses(self, unwanted: Set[str]) -> dict[str, str]:
        if not unwanted:
            return {}
        self._lines += len(unwanted)
        with self.deaf_to(ADDRESSES):
            return device.take(self._route, self._index, unwanted)


def at_fault(parts: Parts, ranges: Ranges) -> dict[str, str]:
    """Which ones nft would not take, and its words; found by halves. None if it does not take the table itself."""
    base, found = table.base(ranges), dict[str, str]()
    groups = [] if ruleset.refusal(base) else [sorted(parts)]
    while groups:
        group = groups.pop()
        whole = union(parts[key] for key in group)
        words = ruleset.refusal(Update(table.changes({}, whole.elements), whole.chains, base=base).text)
        if words and len(group) == 1:
            found[group[0]] = words
        elif words:
            groups += [group[: len(group) // 2], group[len(group) // 2 :]]
    return found


def _by_service(parts: Parts, failed: Mapping[Step, str], addresses: Mapping[str, str]) -> dict[str, str]:
    refused: dict[str, str] = {}
    if failed or addresses:
        for key, part in parts.items():
            words = [text for step, text in failed.items() if step.front in part.servers]
            words += [addresses[item] for item in part.addresses if item in addresses]
            if words:
                refused[key] = "; ".join(words[:3])
    return refused


def inspect(made: Part, ranges: Ranges, hertz: int) -> Inspection:
    """What the kernel has of a service, read anew. Raises RulesUnavailable, RulesRefused, OSError."""
    with netlink.Socket() as route, ruleset.connect() as netfilter:
        have = _addresses(route)
        there = lines.listed(ruleset.read()) if ruleset.fingerprint(netfilter) else lines.Listed()
    ipvs = kernel.Ipvs(hertz)
    try:
        standing = ipvs.standing(have.ours | made.addresses)
    finally:
        ipvs.close()
    return lines.inspection(made, ranges, have, standing, there)


def _addresses(route: netlink.Socket) -> Addresses:
    found = device.find(route)
    return device.addresses(route, found[0] if found else 0)


def remove(run: Path) -> None:
    """Take all of it out of the kernel and give the settings back; at once where there is nothing.

    Whatever of it somebody has deleted: the table knows the addresses as well as the device does.
    """
    with netlink.Socket() as route, ruleset.connect() as netfilter:
        if Path(servers.PATH).exists():  # else there are none; asking the kernel would load the module
            _remove_servers(_addresses(route).ours | ruleset.addresses(netfilter))
        if ruleset.fingerprint(netfilter):
            ruleset.load(table.removal())
        sysctl.restore(run / _SAVED)
        if device.find(route) is not None:
            device.delete(route)


def _remove_servers(addresses: frozenset[str]) -> None:
    ipvs = kernel.Ipvs()
    try:
        if refused := ipvs.perform([servers.DeleteServer(front) for front in ipvs.standing(addresses)]):
            raise RulesRefused("; ".join(list(refused.values())[:3]))
    finally:
        ipvs.close()
