"""The table in the kernel, kept as wanted: what stands, what differs, what others have changed.

Owns the table `podplane-services` and nothing else: foreign tables stay byte for byte. Every change holds only the
elements that differ, and is one transaction; chains and containers that are new stand before it, in one of their own,
since nothing leads to them yet. Elements alone go by netlink (messages.py): nft takes ten times as long; it is asked
where the kernel does not take them, and says why. A table that an earlier agent left is adopted where its layout is
ours, element by element; else the whole is written anew, in one transaction as well. Blocks: for use in one thread at a
time.
Fails with RulesRefused, RulesUnavailable and OSError; belief is then thrown away and read again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from nodeagent import netlink
from nodeagent.proxy import messages
from nodeagent.proxy.elements import Changes, Key, Value
from nodeagent.proxy.inspection import Inspection
from nodeagent.proxy.libnftables import Run
from nodeagent.proxy.mode import Ranges, RulesRefused
from nodeagent.proxy.nftables import adopt, lines
from nodeagent.proxy.nftables.differences import (
    Delta,
    Parts,
    adopted,
    by_elements,
    by_parts,
    grown,
    layout_of,
    layout_stamp,
    with_hairpins,
)
from nodeagent.proxy.nftables.parts import Part
from nodeagent.proxy.nftables.reading import Reader, Shape, elements
from nodeagent.proxy.nftables.script import Layout, Script, first_error, only_grows, rule_count, script
from nodeagent.proxy.nftables.table import CONTAINERS, TABLE, Rules, base
from nodeagent.proxy.services import ServicePort
from nodeagent.proxy.writer import Writer

log = logging.getLogger(__name__)

_PURGES = 5
_TRIES = 3
"""Times that something is written before a refusal counts although somebody else changed rules meanwhile."""
_SHOWN = 200
"""Characters of a line that was refused."""


class Blamed(RulesRefused):
    """owner: the service whose line was refused; "" where it cannot be told."""

    def __init__(self, message: str, owner: str, line: str) -> None:
        super().__init__(message, line)
        self.owner = owner


@dataclass(frozen=True, slots=True)
class _Present:
    """What stands: the layout, and the elements where these had to be read."""

    layout: Layout | None
    """None: it is not ours, and has to be made anew."""
    elements: Mapping[Key, Value] | None = None
    """None: those of the parts."""
    is_absent: bool = False
    """There is no table at all."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What stood when it was read ahead, at which generation, and the digest of its elements."""

    ranges: Ranges
    generation: int
    content: str
    present: _Present


class Table:
    """One namespace's table."""

    def __init__(self, run: Run, quietly: Callable[[], AbstractContextManager[None]]) -> None:
        """quietly: around our own writes, which are no news."""
        self._quietly = quietly
        self.written = 0
        """Lines and elements given to the kernel so far."""
        self._run = run
        self._reader = Reader()
        self._writer = Writer()
        self._ranges = Ranges("", "")
        self._parts: dict[str, Part] = {}
        self._layout: Layout | None = None
        self._generation = -1
        self._shape = ""
        self._content = ""
        self._prepared: _Prepared | None = None

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    @property
    def parts(self) -> Parts:
        """What each service has, as far as is known."""
        return self._parts

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
        self._content = ""  # all of it, though it may have been read before
        present = self._read(ranges)
        if present.layout is None or present.elements is None:
            return {}
        return adopt.parts(services, present.elements, present.layout.containers)

    def prepare(self, ranges: Ranges) -> None:
        """Read what an earlier agent left; bring() has it already, where nobody has changed anything since."""
        present = self._read(ranges)
        self._prepared = _Prepared(ranges, self._generation, self._content, present)
        self._content = ""

    def bring(self, delta: Delta, ranges: Ranges, *, apart: bool = False) -> None:
        """Bring the kernel to the parts and delta. apart: so that a refusal can name the service. Raises Blamed."""
        for tries in range(_TRIES, 0, -1):
            present = self._present(ranges)
            whole, layout, changes = self._changes(present, delta, ranges)
            try:
                self._write(present, layout, changes, apart=apart)
                break
            except Blamed:
                if tries == 1 or self._undisturbed:
                    raise
                self._layout = None  # somebody may have taken what was to be replaced
        changed = {key: item for key, item in whole.items() if item is not None and self._parts.get(key) is not item}
        self._parts |= changed
        for key in [key for key, item in whole.items() if item is None]:
            self._parts.pop(key, None)
        self._ranges = ranges
        self._prepared = None
        if self._shape == "":
            self._learn()
        self._purge(present, changed.values())

    def _changes(self, present: _Present, delta: Delta, ranges: Ranges) -> tuple[Delta, Layout, Changes]:
        """Whose parts change, the layout then, and what changes in the kernel."""
        if present.elements is not None:
            whole = with_hairpins({}, {**self._parts, **delta})
            return whole, layout_of(whole.values(), ranges, present.layout), by_elements(present.elements, whole)
        assert present.layout is not None
        delta = with_hairpins(self._parts, delta)
        layout = grown(present.layout, self._parts, delta)
        layout = layout or layout_of({**self._parts, **delta}.values(), ranges, present.layout)
        return delta, layout, by_parts(self._parts, delta)

    def mend(self) -> bool | None:
        """See mode.Mode.look()."""
        if self._layout is None or self._undisturbed:
            return None
        present, layout = self._read(self._ranges), self._layout
        if present.elements is None:
            return None  # the very same as when it was read last
        if not self._write(present, layout, by_elements(present.elements, self._parts)):
            return None
        self._learn()
        return self._undisturbed

    # ── what stands ──────────────────────────────────────────────────────────────────────────────────────────

    def _present(self, ranges: Ranges) -> _Present:
        if self._layout is not None and ranges == self._ranges:
            return _Present(self._layout)
        self._shape = self._content = ""
        return self._read(ranges)

    def _read(self, ranges: Ranges) -> _Present:
        """Read the table. elements None: they are those that were read last. A change meanwhile is seen by the next."""
        self._generation = self._reader.generation()
        ahead = self._prepared if self._prepared is not None and self._prepared.ranges == ranges else None
        if ahead is not None and ahead.generation == self._generation:
            self._content = ahead.content
            return ahead.present
        shape = self._reader.shape()
        expected = self._layout.chains if self._layout else base(ranges)
        if shape is None or not _is_ours(shape, expected, ranges) or self._shape not in ("", shape.digest):
            return _Present(None, {}, is_absent=shape is None)
        own = adopt.containers_named(shape.containers)
        layout = self._layout or adopted(shape.chains, own, ranges)
        raw = {name: self._reader.raw(name) for name in layout.containers if not name.startswith("aff-")}
        content = hashlib.sha256(b"".join(b"".join(bodies) for bodies in raw.values())).hexdigest()
        if content == self._content:
            return _Present(layout)
        self._content = content
        if ahead is not None and ahead.content == content:  # it was not ours, what was changed
            return _Present(layout, ahead.present.elements)
        return _Present(layout, {key: value for name, bodies in raw.items() for key, value in elements(name, bodies)})

    def _learn(self) -> None:
        """Take note of how the kernel spells our chains; not where others may have changed them meanwhile."""
        shape = self._reader.shape()
        if self._layout is not None and shape is not None and _has(shape, self._layout.chains):
            self._shape = shape.digest if self._undisturbed else ""
        else:
            self._generation = -1

    # ── what changes ─────────────────────────────────────────────────────────────────────────────────────────

    def _write(self, present: _Present, layout: Layout, changes: Changes, *, apart: bool = False) -> bool:
        """Lead from what stands to the layout and elements; returns whether anything had to be written."""
        alone = not apart and changes.count > 0 and (present.is_absent or only_grows(present.layout, layout))
        made = script(present.layout, layout, Changes() if alone else changes, apart=apart)
        try:
            if made.lines:
                self._write_words(made, layout)
            if alone:
                self._write_elements(layout, changes)
        except RulesRefused:
            if present.elements is not None:  # they are still those that were read, not those of the parts
                self._layout = None
            raise
        self._layout = layout
        return alone or bool(made.lines)

    def _write_elements(self, layout: Layout, changes: Changes) -> None:
        try:
            requests = messages.requests(TABLE, changes, layout.containers)
            with self._writing(layout, changes.count):
                self._writer.write(requests)
        except messages.NO_ELEMENT as error:  # the kernel's words are an OSError
            log.info("the kernel does not take elements by netlink, nft is asked: %s", error)
            self._write_words(script(layout, layout, changes), layout)

    def _write_words(self, made: Script, layout: Layout) -> None:
        try:
            with self._writing(layout, len(made.lines)):
                self._run(made.text)
        except RulesRefused as error:
            owner, line = made.blamed(str(error))
            where = f" (line: {line[:_SHOWN]})" if line else ""
            raise Blamed(f"nft: {first_error(str(error))}{where}", owner, line) from None

    @contextmanager
    def _writing(self, layout: Layout, count: int) -> Iterator[None]:
        """Around one transaction, after which the layout stands."""
        before, old = self._reader.generation(), self._layout
        undisturbed = before == self._generation
        self._layout = None  # until it is known what came of it
        try:
            with self._quietly():
                yield
        except (RulesRefused, netlink.NetlinkError):
            self._layout = old
            raise
        self.written += count
        if old is None or layout.chains != old.chains or layout.containers.keys() != old.containers.keys():
            self._shape = ""
        self._layout, self._content = layout, ""
        after = self._reader.generation()  # only now: who changes rules from here on is heard
        self._generation = after if undisturbed and after == before + 1 else -1

    def _purge(self, present: _Present, changed: Iterable[Part]) -> None:
        """Forget which clients had an endpoint that is gone."""
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
                self._write_words(made, self._layout)
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


def _is_ours(shape: Shape, chains: Mapping[str, Rules | None], ranges: Ranges) -> bool:
    return shape.stamp == layout_stamp(ranges) and CONTAINERS.keys() <= set(shape.containers) and _has(shape, chains)


def _has(shape: Shape, chains: Mapping[str, Rules | None]) -> bool:
    """Whether each chain has as many rules as it should."""
    return all(rules is None or shape.chains.get(name) == rule_count(rules) for name, rules in chains.items())
