"""nft's words for what has to change in the table: one transaction. Pure.

Owns the order: what is referred to comes before what refers to it, and goes after. Lines may be told apart by service,
so that one that is refused can be named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from nodeagent.proxy.elements import Changes, Container, spelled
from nodeagent.proxy.nftables.table import TABLE, Rules

_HOOK = "type "
_STATEMENT = 2000
"""Elements in one line."""
_PLACE = re.compile(r":(\d+):\d+(?:-\d+)?: Error: (.*)")


@dataclass(frozen=True, slots=True)
class Layout:
    """The chains (None: there, with rules that are not known) and the containers."""

    stamp: str = ""
    """What the table's comment says of the layout."""
    chains: Mapping[str, Rules | None] = field(default_factory=dict)
    containers: Mapping[str, Container] = field(default_factory=dict)


@dataclass(slots=True)
class Script:
    """Lines of nft, each with the service that it is for; "" where it is for several or for all."""

    lines: list[str] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)

    def add(self, line: str, owner: str = "") -> None:
        self.lines.append(line)
        self.owners.append(owner)

    @property
    def text(self) -> str:
        return "\n".join([*self.lines, ""])

    def blamed(self, message: str) -> tuple[str, str]:
        """(owner, line) of the line that nft's message complains of; "" where it names none."""
        found = _PLACE.search(message)
        number = int(found[1]) - 1 if found else -1
        return (self.owners[number], self.lines[number]) if 0 <= number < len(self.lines) else ("", "")


def first_error(message: str) -> str:
    """What nft says first, without where."""
    found = _PLACE.search(message)
    return found[2] if found else message.strip().partition("\n")[0]


def script(old: Layout | None, new: Layout, changes: Changes, *, apart: bool = False) -> Script:
    """The transaction that leads from old (None: whatever it is, all of it goes) to new.

    apart: lines of their own for each service's elements.
    """
    made = Script()
    if old is None:
        made.add(f"add table ip {TABLE}")
        made.add(f"delete table ip {TABLE}")
        made.add(f'add table ip {TABLE} {{ comment "{new.stamp}"; }}')
        old = Layout()
    for name, container in new.containers.items():
        if name not in old.containers:
            made.add(f"add {container.kind} ip {TABLE} {name} {{ {container.declaration} }}")
    changed = {name: rules for name, rules in new.chains.items() if rules is not None and old.chains.get(name) != rules}
    _declare(made, old, changed)
    for name, rules in changed.items():
        for rule in rules[_is_base(rules) :]:
            made.add(f"add rule ip {TABLE} {name} {rule}")
    _elements(made, old, new, changes, apart=apart)
    gone = [name for name in old.chains if name not in new.chains]
    for verb in ("flush", "delete"):
        for name in gone:
            made.add(f"{verb} chain ip {TABLE} {name}")
    for name, container in old.containers.items():
        if name not in new.containers:
            made.add(f"delete {container.kind} ip {TABLE} {name}")
    return made


def only_grows(old: Layout | None, new: Layout) -> bool:
    """Whether all that the new layout has and the old one has not is new: nothing leads to it before elements do."""
    if old is None or old is new:
        return old is new
    return old.chains.items() <= new.chains.items() and old.containers.items() <= new.containers.items()


def rule_count(rules: Rules) -> int:
    """How many rules a chain has; the first item of a base chain is its hook."""
    return len(rules) - _is_base(rules)


def _is_base(rules: Rules) -> bool:
    return bool(rules) and rules[0].startswith(_HOOK)


def _declare(made: Script, old: Layout, changed: Mapping[str, Rules]) -> None:
    for name, rules in changed.items():
        if name in old.chains:
            made.add(f"flush chain ip {TABLE} {name}")
        elif _is_base(rules):
            made.add(f"add chain ip {TABLE} {name} {{ {rules[0]}; policy accept; }}")
        else:
            made.add(f"add chain ip {TABLE} {name}")


def _elements(made: Script, old: Layout, new: Layout, changes: Changes, *, apart: bool) -> None:
    lost: dict[tuple[str, str], list[str]] = {}
    for owner, (container, key) in changes.gone:
        # The elements of a container that goes go with it.
        if container in old.containers and container in new.containers:
            lost.setdefault((owner if apart else "", container), []).append(key)
    won: dict[tuple[str, str], list[str]] = {}
    for owner, (container, key), value in changes.added:
        element = spelled(key, value, is_map=bool(new.containers[container].value))
        won.setdefault((owner if apart else "", container), []).append(element)
    for verb, found in (("delete", lost), ("add", won)):
        for (owner, container), items in found.items():
            for some in _some(items):
                made.add(f"{verb} element ip {TABLE} {container} {{ {some} }}", owner)


def _some(items: Iterable[str]) -> Iterator[str]:
    rest = iter(items)
    while part := list(islice(rest, _STATEMENT)):
        yield ", ".join(part)
