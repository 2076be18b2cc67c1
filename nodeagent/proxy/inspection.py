"""What a node's kernel has of one service beside what it should have, as the answer to `podctl why service`. Pure.

A mode gives both as lines in its own words, spelled alike; here they are compared, and each way of a packet is told
with the lines that it meets. Lists are cut: a service may have thousands of endpoints. Cannot fail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from nodeagent.proxy.services import ServicePort
from nodeagent.proxy.ways import FORWARD, Way, ways
from podplane.v1.diagnosis_pb2 import ServiceRules, ServiceWay

MOST = 50
"""Entries of each list that are told."""
_MOST_WAYS = 300
"""Three for each address of a port; a service may have a hundred ports."""

Lines = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """wanted: what should be there for the service, and for all services. standing: what the kernel has of it.

    links: the wanted lines that a packet meets. passed: the table in which a rule of ours lets pass what is ours,
    before any of others is asked (obstacles.py); "" for none.
    """

    wanted: Lines
    standing: Lines
    links: Callable[[Way], Lines]
    passed: str = ""


def fill(made: ServiceRules, ports: Iterable[ServicePort], found: Inspection) -> None:
    """Say what was found."""
    missing = list((Counter(found.wanted) - Counter(found.standing)).elements())
    extra = list((Counter(found.standing) - Counter(found.wanted)).elements())
    made.standing = len(found.wanted) - len(missing)
    made.missing.extend(missing[:MOST])
    made.extra.extend(extra[:MOST])
    made.missingCount, made.extraCount = len(missing), len(extra)
    lost = frozenset(missing)
    for way in islice(chain.from_iterable(map(ways, ports)), _MOST_WAYS):
        made.ways.append(_way(way, found.links(way), lost))


def remote(ports: Iterable[ServicePort]) -> list[str]:
    """The addresses of endpoints on other nodes, the first of them."""
    return sorted({item.address for port in ports for item in port.reachable if not item.local})[:MOST]


def _way(way: Way, links: Sequence[str], lost: frozenset[str]) -> ServiceWay:
    return ServiceWay(
        source=way.source,
        destination=way.destination,
        address=way.address,
        protocol=way.port.protocol.upper(),
        port=way.number,
        portName=way.port.name,
        action=way.action,
        masquerade=way.masquerade and way.action == FORWARD,
        endpoints=[str(endpoint) for endpoint in way.endpoints[:MOST]],
        links=links[:MOST],
        missing=[line for line in links if line in lost][:MOST],
    )
