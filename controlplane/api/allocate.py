"""Which cluster address and which node ports a service gets. Pure: the taken ones and the dice are arguments.

As in Kubernetes, addresses and ports that are chosen come from the upper part of their range, so that people can
pick from the lower part with little risk; the lower part is used when the upper one is full. Nothing is reserved
here: the caller writes the service, or asks again.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from podplane.v1 import service_pb2

HEADLESS = "None"
NODE_PORT_TYPES = ("NodePort", "LoadBalancer")
HEALTH_CHECK_PROTOCOL = "TCP"
_TRIES = 32
"""Random picks before the range is searched in order."""

PortKey = tuple[int, str]
"""Port and protocol: TCP and UDP may share a number."""


Owner = tuple[str, str]
"""Namespace and name of a service."""

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Others(Generic[K]):
    """What anybody but `own` holds."""

    holders: Mapping[K, Owner]
    own: Owner

    def __contains__(self, key: object) -> bool:
        holder = self.holders.get(key)  # type: ignore[arg-type]
        return holder is not None and holder != self.own


@dataclass(frozen=True, slots=True)
class Taken:
    """What other services hold."""

    addresses: Container[str]
    ports: Container[PortKey]


def needs_node_ports(spec: service_pb2.ServiceSpec) -> bool:
    """Whether every port of such a service has a node port."""
    if spec.type != "LoadBalancer":
        return spec.type == "NodePort"
    return not spec.HasField("allocateLoadBalancerNodePorts") or spec.allocateLoadBalancerNodePorts


def needs_health_check(spec: service_pb2.ServiceSpec) -> bool:
    """Whether load balancers ask each node if it has endpoints of such a service."""
    return spec.type == "LoadBalancer" and spec.externalTrafficPolicy == "Local"


class Ledger:
    """Who holds which address and node port. Kept up to date by put and drop, or built anew from all services."""

    def __init__(self, services: Iterable[service_pb2.Service] = ()) -> None:
        self._addresses: dict[str, Owner] = {}
        self._ports: dict[PortKey, Owner] = {}
        self._held: dict[Owner, tuple[list[str], list[PortKey]]] = {}
        for service in services:
            self.put(service)

    def put(self, service: service_pb2.Service) -> None:
        """Note what a stored service holds, in place of what it held before."""
        owner = (service.metadata.namespace, service.metadata.name)
        self.drop(*owner)
        addresses = [one for one in (*service.spec.clusterIPs, service.spec.clusterIP) if one not in ("", HEADLESS)]
        ports = [(port.nodePort, port.protocol or "TCP") for port in service.spec.ports if port.nodePort]
        if service.spec.healthCheckNodePort:
            ports.append((service.spec.healthCheckNodePort, HEALTH_CHECK_PROTOCOL))
        self._held[owner] = addresses, ports
        self._addresses.update(dict.fromkeys(addresses, owner))
        self._ports.update(dict.fromkeys(ports, owner))

    def drop(self, namespace: str, name: str) -> None:
        """Forget a service that is gone; nothing happens where it is not known."""
        addresses, ports = self._held.pop((namespace, name), ((), ()))
        for address in addresses:
            self._addresses.pop(address, None)
        for port in ports:
            self._ports.pop(port, None)

    def taken(self, namespace: str, name: str) -> Taken:
        """What all services but the named one hold; a view, good until the next put or drop."""
        own = (namespace, name)
        return Taken(Others(self._addresses, own), Others(self._ports, own))


def cluster_address(network: ipaddress.IPv4Network, taken: Container[str], rng: random.Random) -> str | None:
    """A free address of `network`, never its first (the network), its second (the API's) or its last; None if full."""
    first = int(network.network_address) + 2
    addresses = range(first, max(int(network.broadcast_address), first))
    band = min(max(16, len(addresses) // 16), 256)
    chosen = _pick(addresses, band, lambda value: str(ipaddress.IPv4Address(value)) not in taken, rng)
    return None if chosen is None else str(ipaddress.IPv4Address(chosen))


def node_port(
    ports: range, protocol: str, own: Container[PortKey], taken: Container[PortKey], rng: random.Random
) -> int | None:
    """A port that neither the service itself nor another one has for the protocol; None if there is none."""
    band = min(max(16, len(ports) // 32), 128)
    return _pick(ports, band, lambda value: (value, protocol) not in own and (value, protocol) not in taken, rng)


def _pick(values: range, band: int, is_free: Callable[[int], bool], rng: random.Random) -> int | None:
    band = band if band < len(values) else 0
    upper = values[band:]
    for _ in range(_TRIES if upper else 0):
        value = rng.choice(upper)
        if is_free(value):
            return value
    return next((value for value in (*upper, *values[:band]) if is_free(value)), None)
