"""What the control plane fills into services: Kubernetes' defaults, and the addresses and ports it allocates.

Mutators, as in defaults. Where nothing is free, the field stays unset and validation says so.
"""

from __future__ import annotations

from collections.abc import Container

from controlplane.api import allocate
from controlplane.api.admission_context import AdmissionContext
from podplane import intstr
from podplane.v1 import service_pb2

_AFFINITY_SECONDS = 10800


def service(obj: service_pb2.Service, old: service_pb2.Service | None, context: AdmissionContext) -> None:
    """A service's defaults; on update also what a change of type takes away."""
    spec = obj.spec
    spec.type = spec.type or "ClusterIP"
    spec.sessionAffinity = spec.sessionAffinity or "None"
    if spec.sessionAffinity == "None":
        spec.ClearField("sessionAffinityConfig")
    elif spec.sessionAffinity == "ClientIP" and not spec.sessionAffinityConfig.clientIP.HasField("timeoutSeconds"):
        spec.sessionAffinityConfig.clientIP.timeoutSeconds = _AFFINITY_SECONDS
    for port in spec.ports:
        port.protocol = port.protocol or "TCP"
        if not intstr.number(port.targetPort) and not port.targetPort.string_value:
            port.targetPort.CopyFrom(intstr.of(port.port))
    if old is not None:
        _drop_what_the_type_had(spec, old.spec)
    if spec.type != "ExternalName":
        _traffic(spec)
    if context.verb == "create":
        obj.status.loadBalancer.SetInParent()


def addresses(obj: service_pb2.Service, old: service_pb2.Service | None, context: AdmissionContext) -> None:
    """Keep the cluster address and node ports that a service has; allocate those that it lacks."""
    spec = obj.spec
    if spec.type == "ExternalName":
        return
    if old is not None:
        _keep(spec, old.spec)
    wants_address = not spec.clusterIP and not spec.clusterIPs
    wants_ports = allocate.needs_node_ports(spec) and any(not port.nodePort for port in spec.ports)
    wants_check = allocate.needs_health_check(spec) and not spec.healthCheckNodePort
    if wants_address or wants_ports or wants_check:
        taken = context.taken(obj.metadata.namespace, obj.metadata.name)
        if wants_address:
            spec.clusterIP = allocate.cluster_address(context.settings.service_cidr, taken.addresses, context.rng) or ""
        if wants_ports:
            _allocate_ports(spec, taken.ports, context)
        if wants_check:
            own = {(port.nodePort, port.protocol) for port in spec.ports}
            protocol = allocate.HEALTH_CHECK_PROTOCOL
            number = allocate.node_port(context.settings.node_ports, protocol, own, taken.ports, context.rng)
            spec.healthCheckNodePort = number or 0
    if spec.clusterIP and not spec.clusterIPs:
        spec.clusterIPs.append(spec.clusterIP)
    elif spec.clusterIPs and not spec.clusterIP:
        spec.clusterIP = spec.clusterIPs[0]


def _traffic(spec: service_pb2.ServiceSpec) -> None:
    spec.internalTrafficPolicy = spec.internalTrafficPolicy or "Cluster"
    if spec.type in allocate.NODE_PORT_TYPES:
        spec.externalTrafficPolicy = spec.externalTrafficPolicy or "Cluster"
    if spec.type == "LoadBalancer" and not spec.HasField("allocateLoadBalancerNodePorts"):
        spec.allocateLoadBalancerNodePorts = True
    spec.ipFamilyPolicy = spec.ipFamilyPolicy or "SingleStack"
    if not spec.ipFamilies:
        spec.ipFamilies.append("IPv4")


def _drop_what_the_type_had(spec: service_pb2.ServiceSpec, old: service_pb2.ServiceSpec) -> None:
    """What only the old type could have goes with it, unless the writer changed it as well."""
    lost_ports = allocate.needs_node_ports(old) and not allocate.needs_node_ports(spec)
    if lost_ports and {port.nodePort for port in spec.ports} <= {port.nodePort for port in old.ports} | {0}:
        for port in spec.ports:
            port.ClearField("nodePort")
    gone: list[str] = []
    if old.type in allocate.NODE_PORT_TYPES and spec.type not in allocate.NODE_PORT_TYPES:
        gone.append("externalTrafficPolicy")
    if allocate.needs_health_check(old) and not allocate.needs_health_check(spec):
        gone.append("healthCheckNodePort")
    if old.type == "LoadBalancer" and spec.type != "LoadBalancer":
        gone.append("allocateLoadBalancerNodePorts")
    if spec.type == "ExternalName" and old.type != "ExternalName":
        gone += ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy")
    if old.type == "ExternalName" and spec.type != "ExternalName":
        gone.append("externalName")
    for name in gone:
        if getattr(spec, name) == getattr(old, name):
            spec.ClearField(name)  # type: ignore[arg-type]


def _keep(spec: service_pb2.ServiceSpec, old: service_pb2.ServiceSpec) -> None:
    if not spec.clusterIP and not spec.clusterIPs and old.clusterIP:
        spec.clusterIP = old.clusterIP
        spec.clusterIPs.extend(old.clusterIPs)
    if allocate.needs_health_check(spec) and allocate.needs_health_check(old):
        spec.healthCheckNodePort = spec.healthCheckNodePort or old.healthCheckNodePort
    if allocate.needs_node_ports(spec) and allocate.needs_node_ports(old):
        known = {(port.protocol, port.port): port.nodePort for port in old.ports}
        used = {port.nodePort for port in spec.ports}
        for port in spec.ports:
            number = known.get((port.protocol, port.port), 0)
            if not port.nodePort and number and number not in used:
                port.nodePort = number


def _allocate_ports(
    spec: service_pb2.ServiceSpec, taken: Container[allocate.PortKey], context: AdmissionContext
) -> None:
    """One service may serve TCP and UDP of one port under one node port, as DNS does."""
    own = {(port.nodePort, port.protocol) for port in spec.ports if port.nodePort}
    by_port = {port.port: port.nodePort for port in spec.ports if port.nodePort}
    for port in spec.ports:
        if port.nodePort:
            continue
        shared = (by_port.get(port.port, 0), port.protocol)
        if shared[0] and shared not in own and shared not in taken:
            number: int | None = shared[0]
        else:
            number = allocate.node_port(context.settings.node_ports, port.protocol, own, taken, context.rng)
        if number is not None:
            port.nodePort = by_port[port.port] = number
            own.add((number, port.protocol))
