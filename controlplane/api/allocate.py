"""Which cluster address and which node ports a service gets. Pure: the taken ones and the dice are arguments.

As in Kubernetes, addresses and ports that are chosen come from the upper part of their range, so that people can
pick from the lower part with little risk; the lower part is used when the upper one is full. Nothing is reserved
here: the caller writes the service, or asks again.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field

from podplane.v1 import service_pb2

HEADLESS = "None"
NODE_PORT_TYPES = ("NodePort", "LoadBalancer")
_TRIES = 32
"""Random picks before the range is searched in order."""

PortKey = tuple[int, str]
"""Port and protocol: TCP and UDP may share a number."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What other services hold."""

    addresses: set[str] = field(default_factory=set)
    ports: set[PortKey] = field(default_factory=set)


def taken(services: Iterable[service_pb2.Service], *, namespace: str, name: str) -> Taken:
    """What all services but the named one hold."""
    found = Taken()
    for service in services:
        if (service.metadata.namespace, service.metadata.name) == (namespace, name):
            continue
        found.addresses.update(service.spec.clusterIPs or [service.spec.clusterIP])
        found.ports.update((port.nodePort, port.protocol or "TCP") for port in service.spec.ports if port.nodePort)
    found.addresses.difference_update(("", HEADLESS))
    return found


def cluster_address(network: ipaddress.IPv4Network, taken: Container[str], rng: random.Random) -> str | None:
    """A free address of `network`, never its first (the network), its second (the API's) or its last; None if full."""
    first = int(network.network_address) + 2
    addresses = range(first, max(int(network.broadcast_address), first))
    band = min(max(16, len(addresses) // 16), 256)
    chosen = _pick(addresses, band, lambda value: str(ipaddress.IPv4Address(value)) not in taken, rng)
    return None if chosen is None else str(ipaddress.IPv4Address(chosen))


def node_port(ports: range, protocol: str, taken: Container[PortKey], rng: random.Random) -> int | None:
    """A free node port for the protocol; None if there is none."""
    band = min(max(16, len(ports) // 32), 128)
    return _pick(ports, band, lambda value: (value, protocol) not in taken, rng)


def _pick(values: range, band: int, is_free: Callable[[int], bool], rng: random.Random) -> int | None:
    band = band if band < len(values) else 0
    upper = values[band:]
    for _ in range(_TRIES if upper else 0):
        value = rng.choice(upper)
        if is_free(value):
            return value
    return next((value for value in (*upper, *values[:band]) if is_free(value)), None)
