"""Services: ports, types, and addresses and node ports that are in range and nobody else's. Pure."""

from __future__ import annotations

import ipaddress

from controlplane.api import allocate
from controlplane.api.admission_context import AdmissionContext
from controlplane.api.validation.containers import PROTOCOLS
from controlplane.api.validation.metadata import label_map
from controlplane.api.validation.probes import port_reference
from controlplane.api.validation.problems import IMMUTABLE, Problems
from podplane import names
from podplane.errors import FieldError
from podplane.v1 import service_pb2

TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_MAX_AFFINITY = 86400
_TAKEN = "provided port is already allocated"


def service(obj: service_pb2.Service, old: service_pb2.Service | None, context: AdmissionContext) -> list[FieldError]:
    """A service; on update also that it keeps its cluster address."""
    found, spec = Problems(), obj.spec
    found.one_of("spec.type", spec.type, TYPES)
    label_map(spec.selector, "spec.selector", found)
    _ports(spec, found)
    _affinity(spec, found)
    _traffic(spec, found)
    _load_balancer(spec, old, found)
    if spec.externalIPs:
        found.forbidden("spec.externalIPs", "externalIPs are refused: any user could take over any address with them")
    if spec.type == "ExternalName":
        _external_name(spec, found)
    else:
        _addresses(spec, old, found)
        _allocated(obj, old, context, found)
    return found


def _ports(spec: service_pb2.ServiceSpec, found: Problems) -> None:
    headless = spec.clusterIP == allocate.HEADLESS
    if not spec.ports and not headless and spec.type != "ExternalName":
        found.required("spec.ports")
    seen_names: set[str] = set()
    seen_ports: set[tuple[int, str]] = set()
    for index, port in enumerate(spec.ports):
        at = f"spec.ports[{index}]"
        if len(spec.ports) > 1 or port.name:
            found.syntax(f"{at}.name", port.name, names.dns_label)
        found.unique(f"{at}.name", port.name, seen_names)
        found.port(f"{at}.port", port.port)
        found.one_of(f"{at}.protocol", port.protocol, PROTOCOLS)
        port_reference(port.targetPort, f"{at}.targetPort", found)
        if port.appProtocol:
            found.syntax(f"{at}.appProtocol", port.appProtocol, names.qualified_name)
        if (port.port, port.protocol) in seen_ports:
            found.duplicate(at, f"{port.port}/{port.protocol}")
        seen_ports.add((port.port, port.protocol))
        if port.nodePort and spec.type not in allocate.NODE_PORT_TYPES:
            found.forbidden(f"{at}.nodePort", f"may not be used when `type` is '{spec.type}'")


def _affinity(spec: service_pb2.ServiceSpec, found: Problems) -> None:
    found.one_of("spec.sessionAffinity", spec.sessionAffinity, ("ClientIP", "None"))
    path = "spec.sessionAffinityConfig"
    seconds = spec.sessionAffinityConfig.clientIP.timeoutSeconds
    if spec.sessionAffinity == "ClientIP" and not 1 <= seconds <= _MAX_AFFINITY:
        found.invalid(
            f"{path}.clientIP.timeoutSeconds", seconds, f"must be greater than 0 and less than {_MAX_AFFINITY}"
        )
    elif spec.sessionAffinity == "None" and spec.HasField("sessionAffinityConfig"):
        found.forbidden(path, "must not be set when session affinity is None")


def _traffic(spec: service_pb2.ServiceSpec, found: Problems) -> None:
    for name in ("internalTrafficPolicy", "externalTrafficPolicy"):
        found.one_of(f"spec.{name}", getattr(spec, name), ("Cluster", "Local"), required=False)
    if spec.externalTrafficPolicy and spec.type not in allocate.NODE_PORT_TYPES:
        found.invalid(
            "spec.externalTrafficPolicy",
            spec.externalTrafficPolicy,
            "may only be set for externally-accessible services",
        )


def _load_balancer(spec: service_pb2.ServiceSpec, old: service_pb2.Service | None, found: Problems) -> None:
    path, number = "spec.healthCheckNodePort", spec.healthCheckNodePort
    if not allocate.needs_health_check(spec):
        if number:
            words = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
            found.invalid(path, number, words)
    elif old is not None and allocate.needs_health_check(old.spec):
        found.immutable(path, number, old.spec.healthCheckNodePort)
    if spec.HasField("allocateLoadBalancerNodePorts") and spec.type != "LoadBalancer":
        found.forbidden("spec.allocateLoadBalancerNodePorts", "may only be used when `type` is 'LoadBalancer'")


def _external_name(spec: service_pb2.ServiceSpec, found: Problems) -> None:
    found.syntax("spec.externalName", spec.externalName.removesuffix("."), names.dns_subdomain)
    for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if getattr(spec, name):
            found.forbidden(f"spec.{name}", "may not be set for ExternalName services")


def _addresses(spec: service_pb2.ServiceSpec, old: service_pb2.Service | None, found: Problems) -> None:
    if spec.clusterIPs and spec.clusterIPs[0] != spec.clusterIP:
        found.invalid("spec.clusterIPs", list(spec.clusterIPs), "first value must match `clusterIP`")
    if len(spec.clusterIPs) > 1:
        found.invalid("spec.clusterIPs", list(spec.clusterIPs), "may only hold 1 value for a single-stack service")
    found.one_of("spec.ipFamilyPolicy", spec.ipFamilyPolicy, ("SingleStack", "PreferDualStack", "RequireDualStack"))
    for index, family in enumerate(spec.ipFamilies):
        found.one_of(f"spec.ipFamilies[{index}]", family, ("IPv4", "IPv6"))
    if spec.clusterIP == allocate.HEADLESS and spec.type != "ClusterIP":
        found.invalid("spec.clusterIPs[0]", spec.clusterIP, f"may not be set to 'None' for {spec.type} services")
    had = old.spec.clusterIP if old is not None and old.spec.type != "ExternalName" else ""
    if had and spec.clusterIP != had:
        found.invalid("spec.clusterIP", spec.clusterIP, IMMUTABLE)


def _allocated(
    obj: service_pb2.Service, old: service_pb2.Service | None, context: AdmissionContext, found: Problems
) -> None:
    """What it has newly must be in range and free; what it has had stays its own, whatever the settings are now."""
    spec = obj.spec
    held = set(old.spec.clusterIPs) if old is not None else set()
    held_ports = {(port.nodePort, port.protocol) for port in old.spec.ports} if old is not None else set()
    new_address = spec.clusterIP not in (*held, allocate.HEADLESS)
    has_ports = spec.type in allocate.NODE_PORT_TYPES
    new_ports = has_ports and any((port.nodePort, port.protocol) not in held_ports for port in spec.ports)
    had_check = old.spec.healthCheckNodePort if old is not None else 0
    new_check = allocate.needs_health_check(spec) and (not had_check or spec.healthCheckNodePort != had_check)
    if not new_address and not new_ports and not new_check:
        return
    taken = context.taken(obj.metadata.namespace, obj.metadata.name)
    if new_address:
        _address(spec.clusterIP, taken, context, found)
    if new_ports:
        _node_ports(spec, held_ports, taken, context.settings.node_ports, found)
    if new_check:
        _health_check(spec, taken, context.settings.node_ports, found)


def _address(value: str, taken: allocate.Taken, context: AdmissionContext, found: Problems) -> None:
    network, path = context.settings.service_cidr, "spec.clusterIPs[0]"
    if not value:
        found.add("spec.clusterIP", f"Internal error: failed to allocate a serviceIP: range {network} is full")
        return
    try:
        address = ipaddress.IPv4Address(value)
    except ValueError:
        found.invalid(path, value, "must be a valid IPv4 address, or None")
        return
    if address not in network or address in (network.network_address, network.broadcast_address):
        found.invalid(
            path,
            value,
            f"failed to allocate IP {value}: the provided IP ({value}) is not in the valid "
            f"range. The range of valid IPs is {network}",
        )
    elif value in taken.addresses:
        found.invalid(path, value, f"failed to allocate IP {value}: provided IP is already allocated")


def _node_ports(
    spec: service_pb2.ServiceSpec,
    held: set[allocate.PortKey],
    taken: allocate.Taken,
    ports: range,
    found: Problems,
) -> None:
    seen: set[allocate.PortKey] = set()
    for index, port in enumerate(spec.ports):
        at, key = f"spec.ports[{index}].nodePort", (port.nodePort, port.protocol)
        if not port.nodePort:
            if allocate.needs_node_ports(spec):
                found.add(at, f"Internal error: failed to allocate a nodePort: range {ports[0]}-{ports[-1]} is full")
            continue
        if key in seen:
            found.duplicate(at, port.nodePort)
        elif key not in held and port.nodePort not in ports:
            found.invalid(at, port.nodePort, _out_of_range(ports))
        elif key in taken.ports:
            found.invalid(at, port.nodePort, _TAKEN)
        seen.add(key)


def _health_check(spec: service_pb2.ServiceSpec, taken: allocate.Taken, ports: range, found: Problems) -> None:
    at, number = "spec.healthCheckNodePort", spec.healthCheckNodePort
    key = number, allocate.HEALTH_CHECK_PROTOCOL
    if not number:
        found.add(at, f"Internal error: failed to allocate a port: range {ports[0]}-{ports[-1]} is full")
    elif number not in ports:
        found.invalid(at, number, _out_of_range(ports))
    elif key in taken.ports or key in {(port.nodePort, port.protocol) for port in spec.ports}:
        found.invalid(at, number, _TAKEN)


def _out_of_range(ports: range) -> str:
    return f"provided port is not in the valid range. The range of valid ports is {ports[0]}-{ports[-1]}"
