"""What a pod asks of a node, and whether the node still has it. Pure.

A request that is unset is the limit of the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from podplane import quantity
from podplane.v1.container_pb2 import Container
from podplane.v1.pod_pb2 import Pod, PodSpec


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the node cannot take a pod: status.reason and status.message."""

    reason: str
    message: str


def container_request(container: Container, name: str) -> str:
    """The quantity asked for; empty where neither request nor limit is set."""
    resources = container.resources
    return resources.requests.get(name) or resources.limits.get(name) or ""


def amount(name: str, text: str) -> int:
    """cpu in millicores, everything else in units. "" is 0."""
    if not text:
        return 0
    return quantity.milli(text) if name == "cpu" else quantity.value(text)


def pod_request(spec: PodSpec, name: str) -> int:
    """How much of resource `name` the pod is promised."""
    return _total(spec, name, lambda container: amount(name, container_request(container, name)))


def pod_limit(spec: PodSpec, name: str) -> int | None:
    """How much of it the pod may have; None unless every container has a limit (the kubelet's ResourceConfigForPod)."""
    if not all(container.resources.limits.get(name) for container in (*spec.initContainers, *spec.containers)):
        return None
    return sum_of_limits(spec, name)


def sum_of_limits(spec: PodSpec, name: str) -> int:
    """The limits that there are, as the pod's containers run."""
    return _total(spec, name, lambda container: amount(name, container.resources.limits.get(name, "")))


def _total(spec: PodSpec, name: str, of: Callable[[Container], int]) -> int:
    """The apps together or the largest init container, sidecars beside either (KEP-753), plus overhead."""
    sidecars = peak = 0
    for container in spec.initContainers:
        sidecars += of(container) if container.restartPolicy == "Always" else 0
        peak = max(peak, sidecars + (0 if container.restartPolicy == "Always" else of(container)))
    return max(sidecars + sum(map(of, spec.containers)), peak) + amount(name, spec.overhead.get(name, ""))


def admit(pod: Pod, others: Iterable[Pod], allocatable: Mapping[str, str]) -> Refusal | None:
    """None where the node has room for `pod` beside `others` (those that are not finished)."""
    others = list(others)
    room = amount("pods", allocatable.get("pods", ""))
    if room and len(others) + 1 > room:
        return _refusal("pods", 1, len(others), room)
    for name in sorted(_names(pod.spec)):
        asked = pod_request(pod.spec, name)
        capacity = amount(name, allocatable.get(name, ""))
        used = sum(pod_request(other.spec, name) for other in others)
        if asked and asked + used > capacity:
            return _refusal(name, asked, used, capacity)
    return None


def _names(spec: PodSpec) -> set[str]:
    names: set[str] = set(spec.overhead)
    for container in (*spec.initContainers, *spec.containers):
        names.update(container.resources.requests, container.resources.limits)
    return names


def _refusal(name: str, asked: int, used: int, capacity: int) -> Refusal:
    words = f"Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {capacity}"
    return Refusal(f"OutOf{name}", f"Pod was rejected: {words}")
