"""The EndpointSlices of a service, from its pods and the slices that are there. Pure.

A change touches as few slices as it can: an endpoint stays in its slice, a new one goes where there is room.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from controlplane.controllers.facts import copy_of, is_finished, is_ready, is_terminating
from podplane import intstr
from podplane.v1 import container_pb2, endpointslice_pb2, pod_pb2, service_pb2

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
HEADLESS = "service.kubernetes.io/headless"
LARGEST = 100
"""Endpoints of one slice."""

Slice = endpointslice_pb2.EndpointSlice
Endpoint = endpointslice_pb2.Endpoint
_Ports = tuple[tuple[str, str, int, str], ...]
"""name, protocol, port, appProtocol; what all endpoints of a slice have in common."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write. Updated slices carry the resourceVersion that they were read at."""

    create: list[Slice] = field(default_factory=list)
    update: list[Slice] = field(default_factory=list)
    delete: list[Slice] = field(default_factory=list)


def plan(service: service_pb2.Service, pods: Iterable[pod_pb2.Pod], existing: Sequence[Slice]) -> Plan:
    """`pods` are those that the service's selector matches; `existing` the slices that we manage for it."""
    wanted: dict[_Ports, dict[str, Endpoint]] = {}
    for pod in sorted(pods, key=lambda each: each.metadata.name):
        if belongs(pod):
            wanted.setdefault(_ports(service, pod), {})[pod.metadata.uid] = endpoint(service, pod)
    result = Plan()
    left = {ports: dict(endpoints) for ports, endpoints in wanted.items()}
    kept = [_keep(service, each, left) for each in sorted(existing, key=lambda each: each.metadata.name)]
    _fill(kept, left)
    for before, after in zip(sorted(existing, key=lambda each: each.metadata.name), kept, strict=True):
        if not after.endpoints:
            result.delete.append(before)
        elif after != before:
            result.update.append(after)
    result.create.extend(_fresh(service, left, {each.metadata.name for each in existing}))
    return result


def is_managed(service: service_pb2.Service) -> bool:
    """Whether the endpoints of the service follow from its selector."""
    return bool(service.spec.selector) and service.spec.type != "ExternalName" and not is_terminating(service)


def belongs(pod: pod_pb2.Pod) -> bool:
    """A pod has an endpoint from its address on until it has finished; while it terminates too."""
    return bool(pod.status.podIP) and not is_finished(pod)


def endpoint(service: service_pb2.Service, pod: pod_pb2.Pod) -> Endpoint:
    """The pod as an endpoint (discovery/v1): ready is serving and not terminating, or all are published."""
    serving, terminating = is_ready(pod), is_terminating(pod)
    made = Endpoint(addresses=[pod.status.podIP])
    made.conditions.ready = service.spec.publishNotReadyAddresses or (serving and not terminating)
    made.conditions.serving, made.conditions.terminating = serving, terminating
    if pod.spec.nodeName:
        made.nodeName = pod.spec.nodeName
    if pod.spec.hostname and pod.spec.subdomain == service.metadata.name:
        made.hostname = pod.spec.hostname
    target, meta = made.targetRef, pod.metadata
    target.kind, target.namespace, target.name, target.uid = "Pod", meta.namespace, meta.name, meta.uid
    return made


def _ports(service: service_pb2.Service, pod: pod_pb2.Pod) -> _Ports:
    """The service's ports as they are on this pod. A named port that the pod does not have is left out."""
    found = []
    for port in service.spec.ports:
        protocol = port.protocol or "TCP"
        number: int | None = port.port
        if port.HasField("targetPort"):
            number = intstr.resolve_port(port.targetPort, containers(pod), protocol)
        if number:
            found.append((port.name, protocol, number, port.appProtocol))
    return tuple(sorted(found))


def containers(pod: pod_pb2.Pod) -> Iterator[container_pb2.Container]:
    yield from pod.spec.containers
    yield from (each for each in pod.spec.initContainers if each.restartPolicy == "Always")


def _ports_of(each: Slice) -> _Ports:
    return tuple(sorted((port.name, port.protocol, port.port, port.appProtocol) for port in each.ports))


def _keep(service: service_pb2.Service, before: Slice, left: dict[_Ports, dict[str, Endpoint]]) -> Slice:
    """The slice with those of its endpoints that are still wanted, in their present state; taken out of `left`."""
    after = copy_of(before)
    del after.endpoints[:]
    _label(after, service)
    waiting = left.get(_ports_of(before), {})
    for old in before.endpoints:
        if (now := waiting.pop(old.targetRef.uid, None)) is not None:
            after.endpoints.append(now)
    return after


def _fill(kept: Iterable[Slice], left: dict[_Ports, dict[str, Endpoint]]) -> None:
    for each in kept:
        waiting = left.get(_ports_of(each), {})
        for uid in list(waiting)[: LARGEST - len(each.endpoints)]:
            each.endpoints.append(waiting.pop(uid))


def _fresh(service: service_pb2.Service, left: dict[_Ports, dict[str, Endpoint]], taken: set[str]) -> Iterator[Slice]:
    for ports, waiting in sorted(left.items()):
        endpoints = list(waiting.values())
        for start in range(0, len(endpoints), LARGEST):
            name = _name(service, taken)
            taken.add(name)
            yield _slice(service, name, ports, endpoints[start : start + LARGEST])


def _name(service: service_pb2.Service, taken: set[str]) -> str:
    """The first free of a fixed series of names: doing it again after a crash meets what was done."""
    number = 0
    while True:
        digest = hashlib.blake2s(f"{service.metadata.uid}/{number}".encode(), digest_size=4).hexdigest()
        name = f"{service.metadata.name}-{digest[:5]}"
        if name not in taken:
            return name
        number += 1


def _slice(service: service_pb2.Service, name: str, ports: _Ports, endpoints: Sequence[Endpoint]) -> Slice:
    made = Slice(apiVersion="discovery.k8s.io/v1", kind="EndpointSlice", addressType="IPv4")
    made.metadata.name, made.metadata.namespace = name, service.metadata.namespace
    made.metadata.ownerReferences.add(
        apiVersion="v1",
        kind="Service",
        name=service.metadata.name,
        uid=service.metadata.uid,
        controller=True,
        blockOwnerDeletion=True,
    )
    _label(made, service)
    made.endpoints.extend(endpoints)
    for port_name, protocol, number, application in ports:
        port = made.ports.add(name=port_name, protocol=protocol, port=number)
        if application:
            port.appProtocol = application
    return made


def _label(made: Slice, service: service_pb2.Service) -> None:
    labels = {**service.metadata.labels, SERVICE_NAME: service.metadata.name, MANAGED_BY: MANAGER}
    if service.spec.clusterIP == "None":
        labels[HEADLESS] = ""
    if dict(made.metadata.labels) != labels:
        made.metadata.labels.clear()
        made.metadata.labels.update(labels)
