"""What becomes of a packet at each address of a service port, by where it comes from: what all modes promise. Pure.

Owns no rule: a mode says in its own words which of its rules such a packet meets (inspection.py compares). Cannot
fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodeagent.proxy.services import Endpoint, ServicePort

POD, NODE, OUTSIDE = "pod", "node", "outside"
SOURCES = (POD, NODE, OUTSIDE)
CLUSTER_IP, NODE_PORT, LOAD_BALANCER = "ClusterIP", "NodePort", "LoadBalancer"
FORWARD, REFUSE, DROP = "Forward", "Refuse", "Drop"


@dataclass(frozen=True, slots=True)
class Way:
    """From one kind of source (a pod of this node, the node itself, outside) to one address of a port."""

    source: str
    destination: str
    address: str
    """"" for a node port: any address of the node."""
    number: int
    port: ServicePort
    action: str
    endpoints: tuple[Endpoint, ...]
    masquerade: bool
    """Whether the endpoint sees the node's address in place of the client's."""


def ways(port: ServicePort) -> Iterator[Way]:
    """All of a port's."""
    places = [(CLUSTER_IP, port.cluster_ip, port.port)]
    places += [(LOAD_BALANCER, address, port.port) for address in port.load_balancer_ips]
    places += [(NODE_PORT, "", port.node_port)] if port.node_port else []
    for destination, address, number in places:
        for source in SOURCES:
            endpoints, masquerade = _answering(port, source, inside=destination == CLUSTER_IP)
            yield Way(source, destination, address, number, port, _action(port, endpoints), endpoints, masquerade)


def _answering(port: ServicePort, source: str, *, inside: bool) -> tuple[tuple[Endpoint, ...], bool]:
    """Who answers, and whether the source is masqueraded."""
    if inside:
        return port.internal, source != POD
    if not port.external_local:
        return port.endpoints, True
    return (port.local_endpoints, False) if source == OUTSIDE else (port.endpoints, source == NODE)


def _action(port: ServicePort, endpoints: tuple[Endpoint, ...]) -> str:
    if endpoints:
        return FORWARD
    return DROP if port.endpoints else REFUSE
