"""What one service should have and has in mode ipvs, as lines; and which of them a packet meets. Pure.

Virtual and real servers, the service's addresses, elements of the table's sets; chains by how many rules they have. A
real server that leaves (weight 0) is no difference. Cannot fail.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nodeagent.proxy.inspection import Inspection
from nodeagent.proxy.ipvs import table
from nodeagent.proxy.ipvs.plan import DEVICE, Addresses, Elements, Front, Part
from nodeagent.proxy.ipvs.servers import Standing, Virtual
from nodeagent.proxy.mode import Ranges
from nodeagent.proxy.ways import FORWARD, NODE, NODE_PORT, Way


@dataclass(frozen=True, slots=True)
class Listed:
    """The table in the kernel: its elements in our words, and how many rules each chain has."""

    elements: Elements = field(default_factory=dict)
    chains: Mapping[str, int] = field(default_factory=dict)


def listed(text: str) -> Listed:
    """Read `nft -j list table`."""
    elements: dict[tuple[str, str], tuple[str, str]] = {}
    chains: dict[str, int] = {}
    for item in json.loads(text)["nftables"]:
        [(kind, found)] = item.items()
        if kind == "chain":
            chains.setdefault(found["name"], 0)
        elif kind == "rule":
            chains[found["chain"]] = chains.get(found["chain"], 0) + 1
        elif kind in ("set", "map"):
            for element in found.get("elem", ()):
                key, value = element if kind == "map" else (element, None)
                elements[found["name"], _key(key)] = _leads_to(value) if value else "", _comment(key)
    return Listed(elements, chains)


def _key(found: Any) -> str:
    if isinstance(found, dict):
        return _key(found["elem"]["val"]) if "elem" in found else " . ".join(map(str, found["concat"]))
    return str(found)


def _comment(found: Any) -> str:
    return str(found["elem"].get("comment", "")) if isinstance(found, dict) and "elem" in found else ""


def _leads_to(found: Mapping[str, Any]) -> str:
    """A verdict, or an address and port."""
    [(verb, rest)] = found.items()
    if verb == "concat":
        return _key(found)
    return f"{verb} {rest['target']}" if rest else verb


def inspection(
    made: Part,
    ranges: Ranges,
    have: Addresses,
    standing: Standing,
    there: Listed,
) -> Inspection:
    """made: what the service should have now. standing: virtual servers, of ours."""
    addresses = made.addresses - have.others
    elements = {**made.elements, **table.listed(addresses)}
    lengths = {name: _length(rules) for name, rules in {**table.chains(ranges), **made.chains}.items()}
    wanted = [*_addresses(addresses), *_wanted(made), *_elements(elements), *_chains(lengths)]
    mine = {key: value for key, value in there.elements.items() if key in elements or _is_at(key, made)}
    chains = {name: there.chains[name] for name in lengths if name in there.chains}
    found = [*_addresses(addresses & have.ours), *_found(made, standing), *_elements(mine), *_chains(chains)]
    return Inspection(
        tuple(wanted), tuple(found), lambda way: tuple(dict.fromkeys(_met(made, addresses, lengths, way)))
    )


def _length(rules: Sequence[str]) -> int:
    """How many rules a chain has; the first item of a base chain is its hook."""
    return len(rules) - rules[0].startswith("type ")


def _is_at(key: tuple[str, str], made: Part) -> bool:
    """Whether an element is about an address of the service."""
    return key[1].split(" ")[0] in made.addresses


def _addresses(addresses: Collection[str]) -> Iterator[str]:
    yield from (f"address {address} on {DEVICE}" for address in sorted(addresses))


def _wanted(made: Part) -> Iterator[str]:
    for front, server in made.servers.items():
        if server.targets:
            yield _virtual(front, server.scheduler, server.affinity)
            yield from (_real(front, target) for target in sorted(server.targets))


def _found(made: Part, standing: Standing) -> Iterator[str]:
    for front, there in standing.items():
        wanted = made.servers.get(front)
        targets = wanted.targets if wanted else frozenset()
        if (front not in made.servers and front.address not in made.addresses) or _only_leaves(there, bool(targets)):
            continue
        yield _virtual(front, there.scheduler, there.affinity)
        for target, real in sorted(there.reals.items()):
            if real.weight:
                yield _real(front, target)
            elif target in targets:
                yield f"{_real(front, target)} weight 0"


def _only_leaves(there: Virtual, has_targets: bool) -> bool:
    return not has_targets and not any(real.weight for real in there.reals.values())


def _virtual(front: Front, scheduler: str, affinity: int) -> str:
    return f"virtual server {front} {scheduler}{f' persistent {affinity}' if affinity else ''}"


def _real(front: Front, target: tuple[str, int]) -> str:
    return f"real server {front} -> {target[0]}:{target[1]}"


def _elements(elements: Elements) -> Iterator[str]:
    for (name, key), (verdict, _) in elements.items():
        yield f"{name}: {key} : {verdict}" if verdict else f"{name}: {key}"


def _chains(lengths: Mapping[str, int]) -> Iterator[str]:
    yield from (f"chain {name}: {count} rule{'' if count == 1 else 's'}" for name, count in lengths.items())


def _met(made: Part, addresses: Collection[str], lengths: Mapping[str, int], way: Way) -> Iterator[str]:
    names = ["output" if way.source == NODE else "prerouting", "services"] if way.action == FORWARD else ["input"]
    place = " . ".join(filter(None, (way.address, way.port.protocol, str(way.number))))
    elements = {key: value for key, value in made.elements.items() if key[1] == place}
    own = [
        verdict.removeprefix("goto ")
        for verdict, _ in elements.values()
        if verdict.startswith(("goto port-", "goto forward_"))
    ]
    yield from _chains({name: lengths[name] for name in names})
    if way.destination != NODE_PORT and way.address in addresses:
        yield from _addresses({way.address})
    yield from _elements(elements)
    yield from _chains({name: lengths[name] for name in own if name in lengths})
    targets = frozenset((endpoint.address, endpoint.port) for endpoint in way.endpoints)
    for front, server in made.servers.items() if targets else ():
        if server.targets == targets and _leads(front, way):
            yield _virtual(front, server.scheduler, server.affinity)
            yield from (_real(front, target) for target in sorted(targets))
    if way.masquerade and way.action == FORWARD:
        yield from _chains({"postrouting": lengths["postrouting"]})


def _leads(front: Front, way: Way) -> bool:
    """Whether a virtual server may be the one: a node port leads to the cluster address, or to one of its own mark."""
    if not front.mark:
        return (front.protocol, front.address, front.port) == (way.port.protocol, way.port.cluster_ip, way.port.port)
    return way.destination != "ClusterIP"
