"""Namespaces, nodes, endpoint slices and events. Pure."""

from __future__ import annotations

import ipaddress

from controlplane.api import pod_security
from controlplane.api.admission_context import AdmissionContext
from controlplane.api.validation.addresses import usable
from controlplane.api.validation.containers import PROTOCOLS
from controlplane.api.validation.problems import Problems
from controlplane.api.validation.scheduling import taints
from podplane import names
from podplane.errors import FieldError
from podplane.v1 import endpointslice_pb2, event_pb2, namespace_pb2, node_pb2

MAX_ENDPOINTS = 1000
MAX_PORTS = 100


def namespace(
    obj: namespace_pb2.Namespace, _old: namespace_pb2.Namespace | None, _context: AdmissionContext
) -> list[FieldError]:
    """A namespace's finalizers, and the level of pod security that its labels say."""
    found = Problems()
    for label, value, words in pod_security.label_problems(obj.metadata.labels):
        found.invalid(f"metadata.labels[{label}]", value, words)
    for index, finalizer in enumerate(obj.spec.finalizers):
        found.syntax(f"spec.finalizers[{index}]", finalizer, names.qualified_name)
    return found


def node(obj: node_pb2.Node, old: node_pb2.Node | None, _context: AdmissionContext) -> list[FieldError]:
    """A node: taints, and pod CIDRs that never change once set."""
    found = Problems()
    taints(obj.spec.taints, "spec.taints", found)
    for index, cidr in enumerate(obj.spec.podCIDRs):
        try:
            ipaddress.ip_network(cidr)
        except ValueError:
            found.invalid(f"spec.podCIDRs[{index}]", cidr, "must be a valid CIDR value, (e.g. 10.9.8.0/24)")
    if obj.spec.podCIDRs and obj.spec.podCIDR != obj.spec.podCIDRs[0]:
        found.invalid("spec.podCIDR", obj.spec.podCIDR, "must be the first of podCIDRs")
    if old is not None:
        if old.spec.podCIDRs and obj.spec.podCIDRs != old.spec.podCIDRs:
            found.forbidden("spec.podCIDRs", 'node updates may not change podCIDR except from "" to valid')
        if old.spec.providerID and obj.spec.providerID != old.spec.providerID:
            found.forbidden("spec.providerID", 'node updates may not change providerID except from "" to valid')
    return found


def endpoint_slice(
    obj: endpointslice_pb2.EndpointSlice, old: endpointslice_pb2.EndpointSlice | None, _context: AdmissionContext
) -> list[FieldError]:
    """A slice: addresses of its family, and ports whose names differ."""
    found = Problems()
    found.one_of("addressType", obj.addressType, ("FQDN", "IPv4", "IPv6"))
    if old is not None:
        found.immutable("addressType", obj.addressType, old.addressType)
    if len(obj.endpoints) > MAX_ENDPOINTS:
        found.add("endpoints", f"Too many: {len(obj.endpoints)}: must have at most {MAX_ENDPOINTS} items")
    for index, endpoint in enumerate(obj.endpoints):
        _endpoint(endpoint, obj.addressType, f"endpoints[{index}]", found)
    if len(obj.ports) > MAX_PORTS:
        found.add("ports", f"Too many: {len(obj.ports)}: must have at most {MAX_PORTS} items")
    seen: set[str] = set()
    for index, port in enumerate(obj.ports):
        at = f"ports[{index}]"
        found.syntax(f"{at}.name", port.name, names.dns_label, required=False)
        if port.name in seen:
            found.duplicate(f"{at}.name", port.name)
        seen.add(port.name)
        found.one_of(f"{at}.protocol", port.protocol, PROTOCOLS)
        if port.HasField("port"):
            found.port(f"{at}.port", port.port)
    return found


def _endpoint(endpoint: endpointslice_pb2.Endpoint, family: str, path: str, found: Problems) -> None:
    if not endpoint.addresses:
        found.required(f"{path}.addresses", "must contain at least 1 address")
    for index, address in enumerate(endpoint.addresses):
        at = f"{path}.addresses[{index}]"
        if family == "FQDN":
            found.syntax(at, address, names.dns_subdomain)
        else:
            usable(address, at, found, family)
    if endpoint.nodeName:
        found.syntax(f"{path}.nodeName", endpoint.nodeName, names.dns_subdomain)
    if endpoint.hostname:
        found.syntax(f"{path}.hostname", endpoint.hostname, names.dns_label)


def event(obj: event_pb2.Event, _old: event_pb2.Event | None, _context: AdmissionContext) -> list[FieldError]:
    """An event lives in the namespace of what it is about; those about nodes and namespaces in `default`."""
    found = Problems()
    involved = obj.involvedObject.namespace
    if involved and involved != obj.metadata.namespace:
        found.invalid("involvedObject.namespace", involved, "does not match event.namespace")
    return found
