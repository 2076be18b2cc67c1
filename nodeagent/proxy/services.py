"""What each service port should reach: the part of the proxy that all modes share, which only render it. Pure.

Owns the choice of endpoints (ready ones; where none is ready, those that still serve while they terminate; only those
of this node where a policy is Local) and the refusal of what cannot be programmed. Knows nothing of rules. Source:
Kubernetes' Service and EndpointSlice, and kube-proxy's topology.go for who is asked under which policy.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from nodeagent.ipv4 import is_address
from podplane.v1 import endpointslice_pb2, service_pb2

SERVICE_NAME = "kubernetes.io/service-name"
"""The label of a slice that names its service."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_PROTOCOLS = ("TCP", "UDP")
_AFFINITY = 10800


class Unprogrammable(Exception):
    """A service that no rule can be made for; it must not hold up the others."""


class Endpoint(NamedTuple):
    """One backend of a port. local: on this node. A tuple, since there are many to be sorted and compared."""

    address: str
    port: int
    local: bool = False

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


class ServicePort(NamedTuple):
    """One port of one service: where it is asked for, and the endpoints that answer. node_port 0: none."""

    service: str
    """namespace/name."""
    name: str
    protocol: str
    """tcp or udp."""
    cluster_ip: str
    port: int
    node_port: int
    endpoints: tuple[Endpoint, ...]
    """Of all nodes. Where there is none, the port is refused; where a policy leaves none of them, it is dropped."""
    local_endpoints: tuple[Endpoint, ...] = ()
    """Those of this node that answer where a policy is Local; empty where none is."""
    internal_local: bool = False
    """internalTrafficPolicy Local: the cluster address leads to this node's endpoints only."""
    external_local: bool = False
    """externalTrafficPolicy Local: from outside, this node's endpoints only, which see the client's address."""
    affinity: int = 0
    """Seconds that a client stays with its endpoint, by its address, whichever way it asks; 0: none."""
    load_balancer_ips: tuple[str, ...] = ()
    """Further addresses where the port is asked for from outside."""

    @property
    def title(self) -> str:
        return f"{self.service}:{self.name}" if self.name else self.service

    @property
    def is_external(self) -> bool:
        """Whether it is asked for from outside, too."""
        return bool(self.node_port or self.load_balancer_ips)

    @property
    def internal(self) -> tuple[Endpoint, ...]:
        """Who answers at the cluster address."""
        return self.local_endpoints if self.internal_local else self.endpoints

    @property
    def external(self) -> tuple[Endpoint, ...]:
        """Who answers those who ask from outside; pods and the node itself are answered by all endpoints there."""
        return self.local_endpoints if self.external_local else self.endpoints

    @property
    def reachable(self) -> tuple[Endpoint, ...]:
        """All who may be asked by way of this node."""
        if self.internal_local and not self.is_external:
            return self.local_endpoints
        return tuple(sorted({*self.endpoints, *self.local_endpoints}))


@dataclass(frozen=True, slots=True, order=True)
class HostPort:
    """A port of this node that leads to a pod on it. address "": all addresses of the node."""

    pod: str
    """namespace/name."""
    protocol: str
    """tcp or udp."""
    address: str
    port: int
    target: Endpoint


@dataclass(frozen=True, slots=True, order=True)
class HealthCheck:
    """Where a load balancer asks whether this node has endpoints of a service with externalTrafficPolicy Local."""

    port: int
    service: str
    """namespace/name."""
    endpoints: int
    """Ready ones on this node."""


def key_of(service: service_pb2.Service) -> str:
    metadata = service.metadata
    return f"{metadata.namespace}/{metadata.name}"


def owner_of(item: endpointslice_pb2.EndpointSlice) -> str:
    """namespace/name of the service of a slice; nobody's is "namespace/"."""
    metadata = item.metadata
    return f"{metadata.namespace}/{metadata.labels.get(SERVICE_NAME, '')}"


def slices_by_service(
    slices: Iterable[endpointslice_pb2.EndpointSlice],
) -> dict[str, tuple[endpointslice_pb2.EndpointSlice, ...]]:
    """Group slices under the namespace/name of their service."""
    found: dict[str, tuple[endpointslice_pb2.EndpointSlice, ...]] = {}
    for item in slices:
        if owner := item.metadata.labels.get(SERVICE_NAME):
            key = f"{item.metadata.namespace}/{owner}"
            found[key] = (*found.get(key, ()), item)
    return found


def slices_of(
    service: service_pb2.Service, slices: Iterable[endpointslice_pb2.EndpointSlice]
) -> list[endpointslice_pb2.EndpointSlice]:
    """Those of one service."""
    namespace, name = service.metadata.namespace, service.metadata.name
    return [
        item
        for item in slices
        if item.metadata.namespace == namespace and item.metadata.labels.get(SERVICE_NAME) == name
    ]


def ports_of(
    service: service_pb2.Service, slices: Iterable[endpointslice_pb2.EndpointSlice], node_name: str
) -> tuple[ServicePort, ...]:
    """Every port that has a rule. None for a headless or external name service. Raises Unprogrammable."""
    spec = service.spec
    if spec.clusterIP in ("", "None") or spec.type == "ExternalName":
        return ()
    namespace, name = service.metadata.namespace, service.metadata.name
    for each in (namespace, name):
        if _NAME.fullmatch(each) is None:
            raise Unprogrammable(f"{each!r} is not a name")
    key, address, known = f"{namespace}/{name}", _address(spec.clusterIP), tuple(slices)
    outside = _load_balancer_ips(service) if spec.type == "LoadBalancer" else ()
    return tuple([_port(key, address, port, spec, known, node_name, outside) for port in spec.ports])


def _load_balancer_ips(service: service_pb2.Service) -> tuple[str, ...]:
    """What a load balancer has said to hand on with its own address as the destination.

    One of the other family is passed over, as kube-proxy's IPv4 half does: the service is asked for elsewhere, too.
    """
    handed = (item.ip for item in service.status.loadBalancer.ingress if item.ip and item.ipMode in ("", "VIP"))
    return tuple(_address(ip) for ip in handed if not _is_ipv6(ip))


def health_check(
    service: service_pb2.Service, slices: Iterable[endpointslice_pb2.EndpointSlice], node_name: str
) -> HealthCheck | None:
    """The service's health check on this node; None where it has none."""
    spec = service.spec
    if spec.type != "LoadBalancer" or spec.externalTrafficPolicy != "Local" or not spec.healthCheckNodePort:
        return None
    addresses = {
        endpoint.addresses[0]
        for item in slices
        for endpoint in item.endpoints
        if endpoint.addresses and endpoint.nodeName == node_name and _is_ready(endpoint.conditions)
    }
    return HealthCheck(spec.healthCheckNodePort, key_of(service), len(addresses))


def _port(
    key: str,
    cluster_ip: str,
    port: service_pb2.ServicePort,
    spec: service_pb2.ServiceSpec,
    slices: tuple[endpointslice_pb2.EndpointSlice, ...],
    node_name: str,
    outside: tuple[str, ...],
) -> ServicePort:
    name, protocol = port.name, port.protocol or "TCP"
    if protocol not in _PROTOCOLS:
        raise Unprogrammable(f"protocol {protocol} is not supported")
    if name and _NAME.fullmatch(name) is None:
        raise Unprogrammable(f"{name!r} is not a port name")
    exposed = spec.type in ("NodePort", "LoadBalancer")
    internal_local = spec.internalTrafficPolicy == "Local"
    external_local = exposed and spec.externalTrafficPolicy == "Local"
    ready, leaving = _endpoints(name, protocol, slices, node_name)
    return ServicePort(
        service=key,
        name=name,
        protocol=protocol.lower(),
        cluster_ip=cluster_ip,
        port=_number(port.port),
        node_port=_number(port.nodePort) if exposed and port.nodePort else 0,
        endpoints=_serving(ready, leaving),
        local_endpoints=_serving(_here(ready), _here(leaving)) if internal_local or external_local else (),
        internal_local=internal_local,
        external_local=external_local,
        affinity=_affinity(spec),
        load_balancer_ips=outside,
    )


def _affinity(spec: service_pb2.ServiceSpec) -> int:
    if spec.sessionAffinity != "ClientIP":
        return 0
    return spec.sessionAffinityConfig.clientIP.timeoutSeconds or _AFFINITY


def _serving(ready: Iterable[Endpoint], leaving: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """Those that are ready; where none is, those that still serve while they leave."""
    return tuple(sorted({*ready} or {*leaving}))


def _here(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    return [endpoint for endpoint in endpoints if endpoint.local]


def _endpoints(
    name: str, protocol: str, slices: tuple[endpointslice_pb2.EndpointSlice, ...], node_name: str
) -> tuple[list[Endpoint], list[Endpoint]]:
    """Those that may be asked: who is ready, and who still serves while he leaves."""
    ready: list[Endpoint] = []
    leaving: list[Endpoint] = []
    for item in slices:
        if item.addressType not in ("", "IPv4"):
            continue
        # One without a number is for consumers that know what to make of it: kube-proxy passes over it, too.
        ports = [
            each.port for each in item.ports if each.port and each.name == name and (each.protocol or "TCP") == protocol
        ]
        for endpoint in item.endpoints if ports else ():
            conditions, addresses = endpoint.conditions, endpoint.addresses
            is_ready = _is_ready(conditions)
            if addresses and (is_ready or _still_serves(conditions)):
                # Kubernetes: the addresses of one endpoint are interchangeable, clients use the first.
                address, local = _address(addresses[0]), endpoint.nodeName == node_name
                (ready if is_ready else leaving).extend([Endpoint(address, _number(port), local) for port in ports])
    return ready, leaving


def _is_ready(conditions: endpointslice_pb2.EndpointConditions) -> bool:
    return not conditions.HasField("ready") or conditions.ready


def _still_serves(conditions: endpointslice_pb2.EndpointConditions) -> bool:
    return conditions.terminating and (not conditions.HasField("serving") or conditions.serving)


def _address(text: str) -> str:
    if not is_address(text):
        raise Unprogrammable(f"{text!r} is not an IPv4 address")
    return text


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def _number(port: int) -> int:
    if not 0 < port < 65536:
        raise Unprogrammable(f"{port} is not a port")
    return port
