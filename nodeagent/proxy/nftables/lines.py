"""What one service should have and has in the table, as lines; and which of them a packet meets. Pure.

Elements are `container: key : value`. Chains are told by how many rules they have, since the kernel does not say them
in nft's words: those that every packet meets, those that the service leads to. Cannot fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from nodeagent.proxy.elements import Container, Key, Value
from nodeagent.proxy.inspection import Inspection
from nodeagent.proxy.mode import Ranges
from nodeagent.proxy.nftables import adopt
from nodeagent.proxy.nftables.parts import Part, part
from nodeagent.proxy.nftables.script import rule_count
from nodeagent.proxy.nftables.table import CONTAINERS, base, frontends, pick_chain, pick_rules
from nodeagent.proxy.services import ServicePort
from nodeagent.proxy.ways import FORWARD, NODE, NODE_PORT, OUTSIDE, Way

Elements = Mapping[Key, Value]
_REFUSALS = {True: ("filter-input",), False: ("filter-forward", "filter-output", "filter-input")}


def inspection(
    service: str,
    ports: Sequence[ServicePort],
    ranges: Ranges,
    chains: Mapping[str, int],
    elements: Elements,
    containers: Mapping[str, Container],
) -> Inspection:
    """ports: what the service should have now. chains, elements, containers: what the kernel has; chains by length."""
    made = part(ports)
    hairpins = {("hairpins", f"{address} . {address}"): ("", "") for address in sorted(made.hairpins)}
    own = {**made.elements, **hairpins}
    lengths = _lengths(made, ranges)
    wanted = [*_chains(lengths), *_elements(own)]
    found = adopt.parts({service}, elements, containers).get(service, Part())
    mine = {key: value for key, value in elements.items() if key in own or key in found.elements}
    standing = [*_chains({name: chains[name] for name in lengths if name in chains}), *_elements(mine)]
    return Inspection(tuple(wanted), tuple(standing), lambda way: tuple(_met(made, lengths, way)))


def _lengths(made: Part, ranges: Ranges) -> dict[str, int]:
    """How many rules each chain should have that the service relies on."""
    lengths = {name: rule_count(rules) for name, rules in base(ranges).items()}
    lengths |= {name: len(pick_rules(name)) for name in sorted(made.picks)}
    return lengths | {name: len(rules or ()) for name, rules in made.chains.items()}


def _chains(lengths: Mapping[str, int]) -> Iterator[str]:
    yield from (_chain(name, count) for name, count in lengths.items())


def _chain(name: str, count: int) -> str:
    return f"chain {name}: {count} rule{'' if count == 1 else 's'}"


def _elements(elements: Elements) -> Iterator[str]:
    yield from (_element(key, value) for key, value in elements.items())


def _element(key: Key, value: Value) -> str:
    container, what = key
    leads_to, _ = value
    return f"{container}: {what} : {leads_to}" if leads_to else f"{container}: {what}"


def _met(made: Part, lengths: Mapping[str, int], way: Way) -> Iterator[str]:
    prefix = "node-" if way.destination == NODE_PORT else ""
    place = " . ".join(filter(None, (way.address, way.port.protocol, str(way.number))))
    if way.action == FORWARD:
        names = ["output" if way.source == NODE else "prerouting", "services", *(["own"] if prefix else [])]
        yield from (_chain(name, lengths[name]) for name in names)
    elif (refused := (f"{prefix}refused", place)) in made.elements:
        yield from (_chain(name, lengths[name]) for name in _REFUSALS[bool(prefix)])
        yield _element(refused, made.elements[refused])
        return
    yield from _led(made, lengths, way, prefix, place)
    if way.masquerade and way.action == FORWARD:
        yield _chain("postrouting", lengths["postrouting"])


def _led(made: Part, lengths: Mapping[str, int], way: Way, prefix: str, place: str) -> Iterator[str]:
    """The element of the place, the chains that it leads to one after the other, and the endpoints."""
    count = len(way.endpoints)
    container = frontends(node=bool(prefix), count=count)
    value = made.elements.get((container, place))
    if value is not None:
        yield _element((container, place), value)
        value = f"goto {pick_chain(count, node=bool(prefix), local=False)}", ""
    else:
        container = frontends(node=bool(prefix))
        value = made.elements.get((container, place), ("", ""))
        yield _element((container, place), value)
    if value[0] == f"goto {prefix}local":
        yield _chain(f"{prefix}local", lengths[f"{prefix}local"])
        container = f"{prefix}outside" if way.source == OUTSIDE else f"{prefix}inside"
        value = made.elements.get((container, place), ("", ""))
        yield _element((container, place), value)
    chain = value[0].removeprefix("goto ")
    while chain in lengths:
        yield _chain(chain, lengths[chain])
        chain = (made.chains.get(chain) or ("",))[-1].removeprefix("goto ")
    targets = {f"{endpoint.address} . {endpoint.port}" for endpoint in way.endpoints}
    asked = " . ".join(filter(None, (way.address, str(way.number))))
    backends = f"{prefix}backends-{way.port.protocol}"
    for key, found in made.elements.items():
        if key[0] == backends and key[1].rpartition(" . ")[0] == asked and found[0] in targets:
            yield _element(key, found)


def known_containers(names: Iterable[str]) -> dict[str, Container]:
    """Those of the layout, and those of session affinity among names."""
    return {**CONTAINERS, **adopt.containers_named(list(names))}
