"""What each service has in the kernel already: what a restarted agent takes over. Pure.

A service's elements bear its name as comment; its chains are those that its elements lead to, its virtual servers are
at the places that its elements name, or of the marks that its chains set. Cannot fail: what belongs to no service is
left out, and goes with the next writing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from nodeagent.proxy.ipvs.plan import Elements, Front, Part, Server, digest_of
from nodeagent.proxy.ipvs.servers import Standing, Virtual

_CHAIN = re.compile(r"\tchain (\S+) \{\n(.*?)\t\}\n", re.DOTALL)
_MARK = re.compile(r"meta mark set (0x[0-9a-f]+) accept")
_AT_ADDRESS = ("served", "closed", "balanced")

Chains = Mapping[str, tuple[str, ...]]


def chains(text: str) -> dict[str, tuple[str, ...]]:
    """The chains of a table, as `nft list table` prints it."""
    return {name: tuple(line.strip() for line in rules.splitlines()) for name, rules in _CHAIN.findall(text)}


def parts(elements: Elements, chains: Chains, standing: Standing) -> dict[str, Part]:
    """What each service has. elements: of the whole table."""
    found: dict[str, dict[tuple[str, str], tuple[str, str]]] = {}
    for key, (verdict, owner) in elements.items():
        if owner:
            found.setdefault(owner, {})[key] = verdict, owner
    return {owner: _part(own, chains, standing) for owner, own in found.items()}


def _part(own: Elements, chains: Chains, standing: Standing) -> Part:
    led = sorted({verdict.removeprefix("goto ") for verdict, _ in own.values() if verdict.startswith("goto port-")})
    ways = {name: chains[name] for name in led if name in chains}
    fronts = {_front(key) for name, key in own if name == "served"}
    fronts |= {Front(mark=int(mark, 16)) for rules in ways.values() for mark in _MARK.findall("\n".join(rules))}
    servers = {front: _server(standing[front]) for front in fronts if front in standing}
    addresses = frozenset(key.split(" ")[0] for name, key in own if name in _AT_ADDRESS)
    return Part(servers, addresses, own, ways, digest_of(own, ways))


def _front(key: str) -> Front:
    address, protocol, port = key.split(" . ")
    return Front(protocol, address, int(port))


def _server(there: Virtual) -> Server:
    targets = frozenset(target for target, real in there.reals.items() if real.weight)
    return Server(there.scheduler, there.affinity, targets)
