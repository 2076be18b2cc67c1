"""The table in the kernel, kept as wanted: what stands, what differs, what others have changed.

Owns the table `podplane-services` and nothing else: foreign tables stay byte for byte. Every change is one
transaction, and holds only the elements that differ. A table that an earlier agent left is adopted where its layout is
ours, element by element; else the whole is written anew, in one transaction as well. Blocks: for use in one thread at a
time.
Fails with RulesRefused, RulesUnavailable and OSError; belief is then thrown away and read again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from nodeagent.proxy.inspection import Inspection
from nodeagent.proxy.mode import Ranges, RulesRefused
from nodeagent.proxy.nftables import adopt, lines
from nodeagent.proxy.nftables.library import Run
from nodeagent.proxy.nftables.parts import Key, Part, Value
from nodeagent.proxy.nftables.reading import Reader, Shape, elements
from nodeagent.proxy.nftables.script import Changes, Layout, Script, first_error, rule_count, script
from nodeagent.proxy.nftables.table import CONTAINERS, TABLE, Rules, base, is_pick, pick_rules, stamp
from nodeagent.proxy.services import ServicePort

_PURGES = 5
_TRIES = 3
"""Times that something is written before a refusal counts although somebody else changed rules meanwhile."""
_SHOWN = 200
"""Characters of a line that was refused."""
_HAIRPINS = "hairpins"
Parts = Mapping[str, Part]


class Blamed(RulesRefused):
    """owner: the service whose line was refused; "" where it cannot be told."""

    def __init__(self, message: str, owner: str, line: str) -> None:
        super().__init__(message, line)
        self.owner = owner


@dataclass(frozen=True, slots=True)
class _Present:
    """What stands: the layout, and either whose parts, or which elements where these had to be read."""

    layout: Layout | None
    """None: it is not ours, and has to be made anew."""
    parts: Parts
    elements: Mapping[Key, Value] | None = None


class Table:
    """One namespace's table."""

    def __init__(self, run: Run, quietly: Callable[[], AbstractContextManager[None]]) -> None:
        """quietly: around our own writes, which are no news."""
        self._quietly = quietly
        self.written = 0
        """Lines and elements given to the kernel so far."""
        self._run = run
        self._reader = Reader()
        self._ranges = Ranges("", "")
        self._parts: Parts = {}
        self._layout: Layout | None = None
        self._generation = -1
        self._shape = ""
        self._content = ""

    def close(self) -> None:
        self._reader.close()

    @property
    def certain(self) -> bool:
        """Whether it is known what stands. If not, somebody changed rules while we did: look again."""
        return self._layout is not None and self._generation >= 0

    @property
    def _undisturbed(self) -> bool:
        """Whether nobody has changed rules since we looked or wrote."""
        return self._layout is not None and self._generation == self._reader.generation()

    def found(self, services: Collection[str], ranges: Ranges) -> dict[str, Part]:
        """What these services have in a table that an earlier agent left."""
        present = self._read(ranges)
        if present.layout is None or present.elements is None:
            return {}
        return adopt.parts(services, present.elements, present.layout.containers)

    def bring(self, parts: Parts, ranges: Ranges, *, apart: bool = False) -> None:
        """Bring the kernel to parts. apart: so that a refusal can name the service. Raises Blamed."""
        wanted = {**parts, _HAIRPINS: _hairpins(parts.values())}
        layout = _layout(wanted.values(), ranges)
        for tries in range(_TRIES, 0, -1):
            present = self._present(ranges)
            try:
                self._write(self._script(present, layout, wanted, apart=apart), layout)
                break
            except Blamed:
                if tries == 1 or self._undisturbed:
                    raise
                self._layout = None  # somebody may have taken what was to be replaced
        self._parts, self._ranges = wanted, ranges
        if self._shape == "":
            self._learn()
        self._purge(present, wanted)

    def mend(self) -> bool | None:
        """See mode.Mode.look()."""
        if self._layout is None or self._undisturbed:
            return None
        present, layout = self._read(self._ranges), self._layout
        if present.elements is None and present.layout is not None:
            return None  # the very same as when it was read last
        made = self._script(present, layout, self._parts, apart=False)
        if not made.lines:
            return None
        self._write(made, layout)
        self._learn()
        return self._undisturbed

    # ── what stands ──────────────────────────────────────────────────────────────────────────────────────────

    def _present(self, ranges: Ranges) -> _Present:
        if self._layout is not None and ranges == self._ranges:
            return _Present(self._layout, self._parts)
        self._shape = self._content = ""
        return self._read(ranges)

    def _read(self, ranges: Ranges) -> _Present:
        """Read the table. elements None: they are those that were read last. A change meanwhile is seen by the next."""
        self._generation = self._reader.generation()
        shape = self._reader.shape()
        expected = self._layout.chains if self._layout else base(ranges)
        if shape is None or not _is_ours(shape, expected, ranges) or self._shape not in ("", shape.digest):
            return _Present(None, {})
        layout = self._layout or _adopted(shape, ranges)
        raw = {name: self._reader.raw(name) for name in layout.containers if not name.startswith("aff-")}
        content = hashlib.sha256(b"".join(b"".join(bodies) for bodies in raw.values())).hexdigest()
        if content == self._content:
            return _Present(layout, self._parts)
        self._content = content
        found = {key: value for name, bodies in raw.items() for key, value in elements(name, bodies)}
        return _Present(layout, {}, found)

    def _learn(self) -> None:
        """Take note of how the kernel spells our chains; not where others may have changed them meanwhile."""
        shape = self._reader.shape()
        if self._layout is not None and shape is not None and _has(shape, self._layout.chains):
            self._shape = shape.digest if self._undisturbed else ""
        else:
            self._generation = -1

    # ── what changes ─────────────────────────────────────────────────────────────────────────────────────────

    def _script(self, present: _Present, layout: Layout, wanted: Parts, *, apart: bool) -> Script:
        read = present.elements
        changes = by_parts(present.parts, wanted) if read is None else by_elements(read, wanted)
        return script(present.layout, layout, changes, apart=apart)

    def _write(self, made: Script, layout: Layout) -> None:
        if not made.lines:
            self._layout = layout
            return
        before, old = self._reader.generation(), self._layout
        undisturbed = before == self._generation
        self._layout = None  # until it is known what came of it
        try:
            with self._quietly():
                self._run(made.text)
        except RulesRefused as error:
            self._layout = old
            owner, line = made.blamed(str(error))
            where = f" (line: {line[:_SHOWN]})" if line else ""
            raise Blamed(f"nft: {first_error(str(error))}{where}", owner, line) from None
        self.written += len(made.lines)
        if old is None or layout.chains != old.chains or layout.containers.keys() != old.containers.keys():
            self._shape = ""
        self._layout, self._content = layout, ""
        after = self._reader.generation()  # only now: who changes rules from here on is heard
        self._generation = after if undisturbed and after == before + 1 else -1

    def _purge(self, present: _Present, wanted: Parts) -> None:
        """Forget which clients had an endpoint that is gone."""
        changed = [item for key, item in wanted.items() if item.sticky and present.parts.get(key) is not item]
        for part in changed:
            for name, allowed in part.sticky.items():
                if present.layout is not None and name in present.layout.containers:
                    self._purge_map(name, allowed)

    def _purge_map(self, name: str, allowed: frozenset[str]) -> None:
        for tries in range(_PURGES, 0, -1):
            stale = [key for (_, key), (target, _) in elements(name, self._reader.raw(name)) if target not in allowed]
            if not stale:
                return
            made = Script()
            made.add(f"delete element ip {TABLE} {name} {{ {', '.join(stale)} }}")
            try:
                assert self._layout is not None
                self._write(made, self._layout)
            except RulesRefused:
                if tries == 1:  # one of them ended by itself, each time
                    raise


def inspect(service: str, ports: Sequence[ServicePort], ranges: Ranges) -> Inspection:
    """What the kernel has of a service, read anew. Raises OSError."""
    reader = Reader()
    try:
        shape = reader.shape() or Shape("", {}, (), "")
        containers = lines.known_containers(shape.containers)
        names = [name for name in containers if name in shape.containers and not name.startswith("aff-")]
        found = {key: value for name in names for key, value in elements(name, reader.raw(name))}
    finally:
        reader.close()
    return lines.inspection(service, ports, ranges, shape.chains, found, containers)


def by_parts(old: Parts, new: Parts) -> Changes:
    """What differs between two states of all services; one that has not changed is the same value."""
    changes = Changes()
    for owner in old.keys() | new.keys():
        before, after = old.get(owner), new.get(owner)
        if before is after:
            continue
        had, has = before.elements if before else {}, after.elements if after else {}
        changes.gone += [(owner, key) for key, value in had.items() if has.get(key) != value]
        changes.added += [(owner, key, value) for key, value in has.items() if had.get(key) != value]
    return changes


def by_elements(present: Mapping[Key, Value], wanted: Parts) -> Changes:
    """What differs between the kernel's elements and what all services should have."""
    changes = Changes()
    left = dict(present)
    for owner, part in wanted.items():
        for key, value in part.elements.items():
            found = left.pop(key, None)
            if found != value:
                changes.added.append((owner, key, value))
                if found is not None:
                    changes.gone.append((owner, key))
    changes.gone += [("", key) for key in left]
    return changes


def _hairpins(parts: Iterable[Part]) -> Part:
    addresses: frozenset[str] = frozenset().union(*(part.hairpins for part in parts))
    return Part({(_HAIRPINS, f"{address} . {address}"): ("", "") for address in sorted(addresses)})


def _layout(parts: Iterable[Part], ranges: Ranges) -> Layout:
    chains: dict[str, Rules | None] = dict(base(ranges))
    containers = dict(CONTAINERS)
    picks: set[str] = set()
    for part in parts:
        picks |= part.picks
        chains |= part.chains
        containers |= part.containers
    return Layout(_stamp(ranges), {**{name: pick_rules(name) for name in sorted(picks)}, **chains}, containers)


def _stamp(ranges: Ranges) -> str:
    return stamp(base(ranges), CONTAINERS.values())


def _is_ours(shape: Shape, chains: Mapping[str, Rules | None], ranges: Ranges) -> bool:
    return shape.stamp == _stamp(ranges) and CONTAINERS.keys() <= set(shape.containers) and _has(shape, chains)


def _has(shape: Shape, chains: Mapping[str, Rules | None]) -> bool:
    """Whether each chain has as many rules as it should."""
    return all(rules is None or shape.chains.get(name) == rule_count(rules) for name, rules in chains.items())


def _adopted(shape: Shape, ranges: Ranges) -> Layout:
    """The layout that an earlier agent has left."""
    chains: dict[str, Rules | None] = {}
    known = base(ranges)
    for name, count in shape.chains.items():
        rules = pick_rules(name) if is_pick(name) else known.get(name)
        chains[name] = rules if rules is not None and rule_count(rules) == count else None
    return Layout(_stamp(ranges), chains, {**CONTAINERS, **adopt.containers_named(shape.containers)})
