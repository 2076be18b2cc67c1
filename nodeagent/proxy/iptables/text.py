"""iptables-save and iptables-restore text: reading what stands, writing what differs, finding the bad line. Pure.

Owns the text format, never runs anything. Foreign chains are read past; foreign rules are never written.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from nodeagent.proxy.iptables.rules import JUMPS, PREFIX, Jump, Rules, Tables

# By where they lead: another release of iptables may print the rest of the rule otherwise.
_JUMPS = {(jump.table, jump.chain, jump.rule.split()[-1]): jump for jump in JUMPS}
_LONG, _FEW = 32, 16
"""Rules in a chain, and changes of them, that make single changes cheaper than to write the chain anew."""
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
    nat comes before filter: its rules are those that can be refused, and then filter is as it was, too.
    """
    text, touched = "", {}
    tables = {*present.tables, *wanted, *(jump.table for jump in (*present.jumps, *present.strays))}
    for table in sorted(tables, reverse=True):
        old, new = present.tables.get(table, {}), wanted.get(table, {})
        changed = _changed(old, new)
        more = sum(chain not in old for chain in changed)
        gone = [chain for chain in old if chain not in new] if len(old) + more > len(new) else []
        bases = _bases(present, table, bool(new))
        if changed or gone or bases:
            text += _table(table, old, changed, gone, bases)
            touched[table] = changed | dict.fromkeys(gone, Rules())
    return text, touched


def _changed(old: Mapping[str, Rules], new: Mapping[str, Rules]) -> dict[str, Rules]:
    had = old.get
    # Most are the very same, which is sooner seen than that they are equal.
    others = {chain: rules for chain, rules in new.items() if had(chain) is not rules}
    return {chain: rules for chain, rules in others.items() if had(chain) != rules}


def _table(
    table: str, old: Mapping[str, Rules], changed: Mapping[str, Rules], gone: list[str], bases: list[str]
) -> str:
    edits = {chain: found for chain, rules in changed.items() if (found := _edits(chain, old.get(chain, ()), rules))}
    whole = {chain: rules for chain, rules in changed.items() if chain not in edits}
    # A declared chain is emptied, or made; only then may it go, or be jumped to. The last of the alphabet comes first:
    # iptables-nft keeps its chains sorted in a list, which it searches from the front for each new one's place.
    declared = sorted((*whole, *gone), reverse=True)
    lines = [f"*{table}", *(f":{chain} - [0:0]" for chain in declared), *bases]
    lines += [f"-A {chain} {rule}" for chain, rules in whole.items() for rule in rules]
    lines += [line for found in edits.values() for line in found]
    lines += [f"-X {chain}" for chain in gone]
    return "\n".join([*lines, "COMMIT", ""])


def _edits(chain: str, old: Rules, new: Rules) -> list[str]:
    """The changes of single rules in a long chain; none where it is better written anew: many, or in another order."""
    before, after = set(old), set(new)
    gone, added = before - after, after - before
    if len(old) < _LONG or len(gone) + len(added) > _FEW or len(before) < len(old) or len(after) < len(new):
        return []
    if [rule for rule in old if rule in after] != [rule for rule in new if rule in before]:
        return []
    lines = [f"-D {chain} {rule}" for rule in old if rule in gone]
    return lines + [f"-I {chain} {place} {rule}" for place, rule in enumerate(new, 1) if rule in added]


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
