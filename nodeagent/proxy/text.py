"""iptables-save and iptables-restore text: reading what stands, writing what differs, finding the bad line. Pure.

Owns the text format, never runs anything. Foreign chains are read past; foreign rules are never written.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from nodeagent.proxy.rules import JUMPS, PREFIX, Jump, Rules, Tables

# By where they lead: another release of iptables may print the rest of the rule otherwise.
_JUMPS = {(jump.table, jump.chain, jump.rule.split()[-1]): jump for jump in JUMPS}
_LINE = re.compile(r"line:? (\d+)")


@dataclass(frozen=True, slots=True)
class Observed:
    """What of ours is in the kernel: our chains, and how often each jump to them stands in its base chain."""

    tables: Tables = field(default_factory=dict)
    jumps: Mapping[Jump, int] = field(default_factory=dict)
    strays: tuple[Jump, ...] = ()
    """Rules in foreign chains that lead to ours and are none of JUMPS: of an older version."""

    @property
    def empty(self) -> bool:
        return not any(self.tables.values()) and not self.jumps and not self.strays


def parse(saved: str) -> Observed:
    """Read iptables-save's output."""
    tables: dict[str, dict[str, list[str]]] = {}
    jumps: Counter[Jump] = Counter()
    strays: list[Jump] = []
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(f":{PREFIX}"):
            tables.setdefault(table, {}).setdefault(line[1:].split(" ", 1)[0], [])
        elif line.startswith("-A "):
            _, chain, rule = line.split(" ", 2)
            if chain.startswith(PREFIX):
                tables.setdefault(table, {}).setdefault(chain, []).append(rule)
            elif f"-j {PREFIX}" in rule or f"-g {PREFIX}" in rule:
                known = _JUMPS.get((table, chain, _target(rule)))
                if known is not None:
                    jumps[known] += 1
                else:
                    strays.append(Jump(table, chain, rule))
    chains = {name: {chain: tuple(rules) for chain, rules in found.items()} for name, found in tables.items()}
    return Observed(chains, dict(jumps), tuple(strays))


def _target(rule: str) -> str:
    words = rule.split()
    return words[words.index("-j") + 1] if "-j" in words[:-1] else ""


def restore(present: Observed, wanted: Tables) -> tuple[str, Tables]:
    """Write the input of `iptables-restore --noflush` that leads from present to wanted, touching nothing else.

    Returns it ("" where nothing differs) and what it touches. No wanted tables at all: everything of ours goes.
    """
    text, touched = "", {}
    for table in sorted({*present.tables, *wanted, *(jump.table for jump in (*present.jumps, *present.strays))}):
        old, new = present.tables.get(table, {}), wanted.get(table, {})
        changed = {chain: rules for chain, rules in new.items() if old.get(chain) != rules}
        gone = [chain for chain in old if chain not in new]
        bases = _bases(present, table, bool(new))
        if changed or gone or bases:
            text += _table(table, changed, gone, bases)
            touched[table] = changed | dict.fromkeys(gone, Rules())
    return text, touched


def _table(table: str, changed: Mapping[str, Rules], gone: list[str], bases: list[str]) -> str:
    # A declared chain is emptied, or made; only then may it go, or be jumped to.
    lines = [f"*{table}", *(f":{chain} - [0:0]" for chain in (*changed, *gone)), *bases]
    lines += [f"-A {chain} {rule}" for chain, rules in changed.items() for rule in rules]
    lines += [f"-X {chain}" for chain in gone]
    return "\n".join([*lines, "COMMIT", ""])


def _bases(present: Observed, table: str, wanted: bool) -> list[str]:
    """The changes in base chains: our jumps where they lack (restore would append them again), strays taken out."""
    lines = [f"-D {stray.chain} {stray.rule}" for stray in present.strays if stray.table == table]
    for jump in JUMPS:
        if jump.table == table:
            count = present.jumps.get(jump, 0)
            lines += [f"-D {jump.chain} {jump.rule}"] * max(0, count - wanted)
            lines += [f"-I {jump.chain} 1 {jump.rule}"] * max(0, wanted - count)
    return lines


def offending(message: str, text: str) -> str:
    """The line of the restore input that iptables complains of; "" where it names none."""
    found = _LINE.search(message)
    lines = text.splitlines()
    return lines[int(found[1]) - 1] if found and 0 < int(found[1]) <= len(lines) else ""
