"""What each service port should reach: the part of the proxy that all modes share. Pure.

Owns the choice of endpoints (ready ones; where none is ready, those that still serve while they terminate) and the
refusal of what cannot be programmed. Knows nothing of rules. Source: Kubernetes' Service and EndpointSlice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from podplane.v1 import endpointslice_pb2, service_pb2

SERVICE_NAME = "kubernetes.io/service-name"
"""The label of a slice that names its service."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_PROTOCOLS = ("TCP", "UDP")


class Unprogrammable(Exception):
    """A service that no rule can be made for; it must not hold up the others."""


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """One backend of a port. local: on this node."""

    address: str
    port: int
    local: bool = False

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class ServicePort:
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

    @property
    def title(self) -> str:
        return f"{self.service}:{self.name}" if self.name else self.service


def key_of(service: service_pb2.Service) -> str:
    return f"{service.metadata.namespace}/{service.metadata.name}"


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


def ports_of(
    service: service_pb2.Service, slices: Iterable[endpointslice_pb2.EndpointSlice], node_name: str
) -> tuple[ServicePort, ...]:
    """Every port that has a rule. None for a headless or external name service. Raises Unprogrammable."""
    spec = service.spec
    if spec.type == "ExternalName" or spec.clusterIP in ("", "None"):
        return ()
    key = key_of(service)
    for name in (service.metadata.namespace, service.metadata.name):
        _demand(_NAME.fullmatch(name) is not None, f"{name!r} is not a name")
    address = _address(spec.clusterIP)
    known = tuple(slices)
    return tuple(_port(key, address, port, spec, known, node_name) for port in spec.ports)


def unsupported(service: service_pb2.Service) -> str | None:
    """What the service asks for and this mode does not do yet; it is programmed without. None: nothing."""
    spec = service.spec
    asked = []
    if spec.sessionAffinity not in ("", "None"):
        asked.append(f"sessionAffinity {spec.sessionAffinity}")
    if spec.externalTrafficPolicy not in ("", "Cluster"):
        asked.append(f"externalTrafficPolicy {spec.externalTrafficPolicy}")
    if spec.internalTrafficPolicy not in ("", "Cluster"):
        asked.append(f"internalTrafficPolicy {spec.internalTrafficPolicy}")
    if spec.externalIPs:
        asked.append("externalIPs")
    return f"programmed without {', '.join(asked)}: not supported" if asked else None


def _port(
    key: str,
    cluster_ip: str,
    port: service_pb2.ServicePort,
    spec: service_pb2.ServiceSpec,
    slices: tuple[endpointslice_pb2.EndpointSlice, ...],
    node_name: str,
) -> ServicePort:
    protocol = port.protocol or "TCP"
    _demand(protocol in _PROTOCOLS, f"protocol {protocol} is not supported")
    _demand(not port.name or _NAME.fullmatch(port.name) is not None, f"{port.name!r} is not a port name")
    exposed = spec.type in ("NodePort", "LoadBalancer")
    return ServicePort(
        service=key,
        name=port.name,
        protocol=protocol.lower(),
        cluster_ip=cluster_ip,
        port=_number(port.port),
        node_port=_number(port.nodePort) if exposed and port.nodePort else 0,
        endpoints=_endpoints(port.name, protocol, slices, node_name),
    )


def _endpoints(
    name: str, protocol: str, slices: tuple[endpointslice_pb2.EndpointSlice, ...], node_name: str
) -> tuple[Endpoint, ...]:
    ready: set[Endpoint] = set()
    leaving: set[Endpoint] = set()
    for item in slices:
        if item.addressType not in ("", "IPv4"):
            continue
        ports = [port.port for port in item.ports if port.name == name and (port.protocol or "TCP") == protocol]
        for endpoint in item.endpoints if ports else ():
            bucket = _bucket(endpoint.conditions, ready, leaving)
            if bucket is not None and endpoint.addresses:
                # Kubernetes: the addresses of one endpoint are interchangeable, clients use the first.
                address, local = _address(endpoint.addresses[0]), endpoint.nodeName == node_name
                bucket.update(Endpoint(address, _number(port), local) for port in ports)
    return tuple(sorted(ready or leaving))


def _bucket(
    conditions: endpointslice_pb2.EndpointConditions, ready: set[Endpoint], leaving: set[Endpoint]
) -> set[Endpoint] | None:
    if not conditions.HasField("ready") or conditions.ready:
        return ready
    serving = not conditions.HasField("serving") or conditions.serving
    return leaving if serving and conditions.terminating else None


def _demand(holds: bool, message: str) -> None:
    if not holds:
        raise Unprogrammable(message)


def _address(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise Unprogrammable(f"{text!r} is not an IPv4 address") from None


def _number(port: int) -> int:
    _demand(0 < port < 65536, f"{port} is not a port")
    return port
