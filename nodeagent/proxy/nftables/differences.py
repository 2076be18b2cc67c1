"""What differs between the table as it stands and as it should be, and the layout that parts need. Pure.

Owns nothing. What has changed of a few services costs what these cost, however many others there are. Cannot fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nodeagent.proxy.elements import Changes, Container, Key, Value
from nodeagent.proxy.mode import Ranges
from nodeagent.proxy.nftables.parts import NOTHING, Part
from nodeagent.proxy.nftables.script import Layout, rule_count
from nodeagent.proxy.nftables.table import (
    CONTAINERS,
    USUAL_PICKS,
    Rules,
    base,
    is_pick,
    pick_rules,
    stamp,
)

HAIRPINS = "hairpins"
"""The set, and what owns its elements: no service has such a name."""
Parts = Mapping[str, Part]
Delta = Mapping[str, Part | None]
"""By service, what takes the place of what it had; None: nothing."""


def by_parts(old: Parts, delta: Delta) -> Changes:
    """What has to change where the parts of delta come in the place of those among old."""
    changes = Changes()
    for owner, after in delta.items():
        had, has = old.get(owner, NOTHING).elements, (after or NOTHING).elements
        changes.gone += [(owner, key) for key, value in had.items() if has.get(key) != value]
        changes.added += [(owner, key, value) for key, value in has.items() if had.get(key) != value]
    return changes


def by_elements(present: Mapping[Key, Value], wanted: Delta) -> Changes:
    """What differs between the kernel's elements and what all services should have."""
    changes = Changes()
    left = dict(present)
    for owner, part in wanted.items():
        for key, value in (part or NOTHING).elements.items():
            found = left.pop(key, None)
            if found != value:
                changes.added.append((owner, key, value))
                if found is not None:
                    changes.gone.append((owner, key))
    changes.gone += [("", key) for key in left]
    return changes


def with_hairpins(old: Parts, delta: Delta) -> Delta:
    """Delta, and who may reach himself after it: several services may share an address.

    An address that goes is looked for among all others.
    """
    if HAIRPINS not in old:
        return {**delta, HAIRPINS: Part(_reaching({**old, **delta}.values()))}
    standing, come = old[HAIRPINS].elements, _reaching(delta.values())
    gone = _reaching(old.get(key) for key in delta).keys() - come.keys()
    if gone:
        gone -= _reaching(part for key, part in old.items() if key not in delta).keys()
    if not gone and come.keys() <= standing.keys():
        return delta
    return {**delta, HAIRPINS: Part(dict.fromkeys(sorted({*standing, *come} - gone), ("", "")))}


def _reaching(parts: Iterable[Part | None]) -> dict[Key, Value]:
    """The elements of those who may reach themselves by way of any of these."""
    found = {address for part in parts if part is not None and part.hairpins for address in part.hairpins}
    return {(HAIRPINS, f"{address} . {address}"): ("", "") for address in sorted(found)}


def layout_of(parts: Iterable[Part | None], ranges: Ranges, standing: Layout | None) -> Layout:
    """The layout of all parts. Chains that pick stay where they stand: to make one costs more than to keep it."""
    chains: dict[str, Rules | None] = dict(base(ranges))
    containers = dict(CONTAINERS)
    picks = {*USUAL_PICKS, *(filter(is_pick, standing.chains) if standing else ())}
    for part in filter(None, parts):
        picks |= part.picks
        chains |= part.chains
        containers |= part.containers
    return Layout(layout_stamp(ranges), {**_picking(picks), **chains}, containers)


def grown(standing: Layout, old: Parts, delta: Delta) -> Layout | None:
    """The layout after delta, where that is the standing one but for chains that pick; None where it is not."""
    picks: set[str] = set()
    for key, new in delta.items():
        before, after = old.get(key, NOTHING), new or NOTHING
        if before.chains != after.chains or before.containers != after.containers:
            return None
        picks |= after.picks
    missing = picks - standing.chains.keys()
    if not missing:
        return standing
    return Layout(standing.stamp, {**_picking(missing), **standing.chains}, standing.containers)


def adopted(chains: Mapping[str, int], own: Mapping[str, Container], ranges: Ranges) -> Layout:
    """The layout that an earlier agent has left: chains with so many rules, and containers of affinity."""
    found: dict[str, Rules | None] = {}
    known = base(ranges)
    for name, count in chains.items():
        rules = pick_rules(name) if is_pick(name) else known.get(name)
        found[name] = rules if rules is not None and rule_count(rules) == count else None
    return Layout(layout_stamp(ranges), found, {**CONTAINERS, **own})


def _picking(names: Iterable[str]) -> dict[str, Rules]:
    return {name: pick_rules(name) for name in sorted(names)}


def layout_stamp(ranges: Ranges) -> str:
    return stamp(base(ranges), CONTAINERS.values())
