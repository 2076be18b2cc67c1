"""Services and slices for tests, in one line each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nodeagent.proxy.desired import Key
from podplane.v1 import endpointslice_pb2, service_pb2

Port = tuple[str, str, int, int, int]
"""name, protocol, port, nodePort (0: none), the endpoints' port."""


def by_key(
    services: Iterable[service_pb2.Service], slices: Iterable[endpointslice_pb2.EndpointSlice]
) -> tuple[dict[Key, service_pb2.Service], dict[Key, endpointslice_pb2.EndpointSlice]]:
    """As the proxy is told of them. Slices are named by their place, since tests give several one name."""
    named = {(item.metadata.namespace, item.metadata.name): item for item in services}
    return named, {(part.metadata.namespace, str(place)): part for place, part in enumerate(slices)}


def service(name: str, cluster_ip: str, ports: Sequence[Port]) -> service_pb2.Service:
    made = service_pb2.Service()
    made.metadata.namespace, made.metadata.name = "default", name
    made.spec.clusterIP = cluster_ip
    made.spec.type = "NodePort" if any(port[3] for port in ports) else "ClusterIP"
    for port_name, protocol, number, node_port, _ in ports:
        port = made.spec.ports.add(name=port_name, protocol=protocol, port=number)
        if node_port:
            port.nodePort = node_port
    return made


def slice_of(
    name: str, ports: Sequence[Port], ready: Iterable[str], leaving: Iterable[str] = (), unready: Iterable[str] = ()
) -> endpointslice_pb2.EndpointSlice:
    """A slice of the service; leaving: terminating and still serving; unready: neither."""
    made = endpointslice_pb2.EndpointSlice(addressType="IPv4")
    made.metadata.namespace, made.metadata.name = "default", f"{name}-1"
    made.metadata.labels["kubernetes.io/service-name"] = name
    for port_name, protocol, _, _, target in ports:
        made.ports.add(name=port_name, protocol=protocol, port=target)
    for addresses, is_ready, terminating in ((ready, True, False), (leaving, False, True), (unready, False, False)):
        for address in addresses:
            endpoint = made.endpoints.add(addresses=[address], nodeName="node-1")
            endpoint.conditions.ready = is_ready
            endpoint.conditions.serving = is_ready or terminating
            endpoint.conditions.terminating = terminating
    return made
