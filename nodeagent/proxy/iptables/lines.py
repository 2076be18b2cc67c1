"""What one service should have and has in iptables, as lines `table CHAIN: rule`; and which a packet meets. Pure.

Beside the service's own rules: those that all share, without which none works, and strangers among them. Host ports are
left out. Cannot fail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from nodeagent.proxy.inspection import Inspection
from nodeagent.proxy.iptables import adopt
from nodeagent.proxy.iptables.rules import (
    HAIRPINS,
    HOSTPORTS,
    JUMPS,
    NODEPORTS,
    PREFIX,
    SERVICES,
    UNMARK,
    Jump,
    Rules,
    Tables,
    assemble,
    from_outside,
    part,
)
from nodeagent.proxy.iptables.text import Observed
from nodeagent.proxy.mode import Ranges
from nodeagent.proxy.services import ServicePort
from nodeagent.proxy.ways import CLUSTER_IP, FORWARD, NODE, NODE_PORT, OUTSIDE, POD, Way

_SHARED = (SERVICES, NODEPORTS)
_POSTROUTING = f"{PREFIX}POSTROUTING"
_MASQUERADING = (f"{PREFIX}MARK-MASQ", _POSTROUTING)


def chains(ports: Sequence[ServicePort], ranges: Ranges) -> set[tuple[str, str]]:
    """The chains, by table, that the service should have or shares."""
    tables = assemble([part(ports, ranges)], ranges)
    return {(table, chain) for table, found in tables.items() for chain in found if chain != HOSTPORTS}


def inspection(service: str, ports: Sequence[ServicePort], ranges: Ranges, present: Observed) -> Inspection:
    """ports: what the service should have now; present: what stands."""
    made = part(ports, ranges)
    tables = assemble([made], ranges)
    found = adopt.parts(present.tables).get(service)
    own = {*made.chains, *(found.chains if found else ())}
    shared = {chain for chains in tables.values() for chain in chains if chain not in made.chains} - {HOSTPORTS}
    wanted = [*_lines(tables, {*own, *shared}), *map(_jump, JUMPS)]
    jumps = [*Counter(present.jumps).elements(), *present.strays]
    addresses = made.hairpins | (found.hairpins if found else frozenset())
    standing = [
        *_lines(present.tables, {*own, *shared}, lambda chain, rule: not _is_anothers(chain, rule, service, addresses)),
        *map(_jump, jumps),
    ]
    return Inspection(tuple(wanted), tuple(standing), lambda way: tuple(dict.fromkeys(_met(tables, ranges, way))))


def _line(table: str, chain: str, rule: str) -> str:
    return f"{table} {chain}: {rule}"


def _jump(jump: Jump) -> str:
    return _line(jump.table, jump.chain, jump.rule)


def _lines(
    tables: Tables, chains: Iterable[str], counts: Callable[[str, str], bool] = lambda *_: True
) -> Iterator[str]:
    """Of these chains, those that count, by chain and rule."""
    for table, found in tables.items():
        for chain in sorted(found.keys() & set(chains)):
            yield from (_line(table, chain, rule) for rule in found[chain] if counts(chain, rule))


def _is_anothers(chain: str, rule: str, service: str, addresses: Collection[str]) -> bool:
    """Whether a rule in a chain that all services share is there for another one. addresses: of its own endpoints."""
    if chain == HAIRPINS:
        return adopt.reaching_itself(rule) not in (*addresses, None)
    return chain in _SHARED and adopt.owner(rule) not in (service, None)


def _met(tables: Tables, ranges: Ranges, way: Way) -> Iterator[str]:
    table = "nat" if way.action == FORWARD else "filter"
    chains = tables[table]
    base, between = _entry(way)
    yield from (_jump(each) for each in JUMPS if (each.table, each.chain) == (table, base))
    if way.action == FORWARD and way.destination == CLUSTER_IP and way.masquerade:
        yield _line(table, SERVICES, from_outside(ranges))
    if way.action == FORWARD and way.destination == NODE_PORT and not way.masquerade:
        yield _line(table, SERVICES, UNMARK)
    shared = NODEPORTS if way.destination == NODE_PORT else SERVICES
    if between:
        yield from (_line(table, between, rule) for rule in chains[between] if rule.endswith(f"-j {shared}"))
    for rule in chains.get(shared, ()):
        if all(word in f"{rule} " for word in _asked(way)):
            yield _line(table, shared, rule)
            yield from _followed(chains, rule, table, ranges, way)
    if way.action == FORWARD:
        yield from _postrouted(chains, way)


def _postrouted(chains: Mapping[str, Rules], way: Way) -> Iterator[str]:
    """What gives a packet another source."""
    if way.masquerade:
        for chain in _MASQUERADING:
            yield from (_line("nat", chain, rule) for rule in chains[chain])
    if way.source == POD:  # which may be an endpoint itself
        leading = (rule for rule in chains[_POSTROUTING] if rule.endswith(f"-j {HAIRPINS}"))
        yield from (_line("nat", _POSTROUTING, rule) for rule in leading)
        yield from (_line("nat", HAIRPINS, rule) for rule in chains[HAIRPINS])


def _entry(way: Way) -> tuple[str, str]:
    """The chain of the kernel's that such a packet begins in, and the one of ours that leads on from there."""
    if way.action == FORWARD:
        return "OUTPUT" if way.source == NODE else "PREROUTING", SERVICES if way.destination == NODE_PORT else ""
    if way.destination == NODE_PORT:
        return "INPUT", f"{PREFIX}INPUT"
    return ("OUTPUT", "") if way.source == NODE else ("FORWARD", f"{PREFIX}FORWARD")


def _asked(way: Way) -> list[str]:
    address = [f"-d {way.address}/32 "] if way.address else []
    return [*address, f"-p {way.port.protocol} ", f"--dport {way.number} "]


def _followed(chains: Mapping[str, Rules], rule: str, table: str, ranges: Ranges, way: Way) -> Iterator[str]:
    """The rules of the chains that a rule leads to, over however many jumps, but for those of other sources."""
    ahead, seen = [rule], set(_MASQUERADING)
    while ahead:
        target = ahead.pop(0).rpartition("-j ")[2].split(" ")[0]
        if not target.startswith(PREFIX) or target in seen:
            continue
        seen.add(target)
        for found in chains.get(target, ()):
            if _concerns(found, ranges, way):
                yield _line(table, target, found)
                ahead.append(found)


def _concerns(rule: str, ranges: Ranges, way: Way) -> bool:
    if rule.startswith(f"-s {ranges.pod_cidr} "):
        return way.source == POD
    if "--src-type LOCAL" in rule:
        return way.source == NODE
    # The last rule of a Local port's chain is for those that none before it has taken.
    return way.source == OUTSIDE or not rule.startswith(f"-j {PREFIX}SVL-")
