"""What the scheduler knows of a pod: plain values, read once from the message.

Pods that ask the same of a node share one Shape: everything that the scheduler computes is kept per shape, so
that the thousandth replica costs what has changed since the last one and not another look at every node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from controlplane.scheduler.terms import Term, Toleration, read_term, read_tolerations
from podplane import quantity
from podplane.v1 import container_pb2, pod_pb2

DEFAULT_SCHEDULER = "default-scheduler"
SCORED_CPU, SCORED_MEMORY = 100, 200 * 1024 * 1024
"""What a container without requests counts as when nodes are scored (Kubernetes' non-zero requests)."""

Group = tuple[str, ...]
"""Pods that are spread over nodes together: by controller, or by equal labels where they have none."""
HostPort = tuple[str, int, str]
"""protocol, port, address; "0.0.0.0" is every address."""


@dataclass(frozen=True, slots=True)
class Resources:
    """cpu in millicores, memory and ephemeral storage in bytes; other resources by name."""

    cpu: int = 0
    memory: int = 0
    ephemeral: int = 0
    other: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Shape:
    """All that filters and scores look at: equal shapes are placed by equal rules."""

    requests: Resources = Resources()
    scored_cpu: int = SCORED_CPU
    scored_memory: int = SCORED_MEMORY
    node_selector: tuple[tuple[str, str], ...] = ()
    required: tuple[Term, ...] | None = None
    preferred: tuple[tuple[int, Term], ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    host_ports: tuple[HostPort, ...] = ()
    node_name: str = ""
    group: Group | None = None


@dataclass(slots=True, eq=False)
class PodInfo:
    """A pod as the scheduler sees it; `node` is "" until it is bound or assumed."""

    namespace: str
    name: str
    uid: str
    shape: Shape
    node: str = ""
    priority: int = 0
    created: float = 0.0
    finished: bool = False
    """Succeeded or Failed: it holds nothing of its node."""
    generation: int = 0
    """Of the spec that the shape was read from; 0: not known."""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


def read_pod(pod: pod_pb2.Pod, known: PodInfo | None = None) -> PodInfo:
    """The pod's values. Raises ValueError where a quantity cannot be read (admission refuses such pods).

    known: those of earlier on. Most of what is heard of a pod is its status: then its shape is the same.
    """
    generation = pod.metadata.generation
    same = known is not None and 0 < generation == known.generation and _group(pod) == known.shape.group
    return PodInfo(
        namespace=pod.metadata.namespace,
        name=pod.metadata.name,
        uid=pod.metadata.uid,
        shape=known.shape if known is not None and same else _intern(read_shape(pod)),
        node=pod.spec.nodeName,
        priority=pod.spec.priority,
        created=pod.metadata.creationTimestamp.seconds,
        finished=pod.status.phase in ("Succeeded", "Failed"),
        generation=generation,
    )


@lru_cache(maxsize=4096)
def _intern(shape: Shape) -> Shape:
    return shape


def read_shape(pod: pod_pb2.Pod) -> Shape:
    """The part of a pod that decides where it may run and where it runs best."""
    spec = pod.spec
    affinity = spec.affinity.nodeAffinity
    requests, (scored_cpu, scored_memory) = pod_requests(spec), _scored(spec)
    required = affinity.requiredDuringSchedulingIgnoredDuringExecution
    has_required = affinity.HasField("requiredDuringSchedulingIgnoredDuringExecution")
    return Shape(
        requests=requests,
        scored_cpu=scored_cpu,
        scored_memory=scored_memory,
        node_selector=tuple(sorted(spec.nodeSelector.items())),
        required=tuple(map(read_term, required.nodeSelectorTerms)) if has_required else None,
        preferred=tuple(
            (each.weight, read_term(each.preference))
            for each in affinity.preferredDuringSchedulingIgnoredDuringExecution
        ),
        tolerations=read_tolerations(spec.tolerations),
        host_ports=_host_ports(spec),
        group=_group(pod),
    )


def pod_requests(spec: pod_pb2.PodSpec) -> Resources:
    """What a pod takes of its node: the containers together or the largest init container, whichever is more.

    A sidecar (an init container that restarts always) runs along with everything after it (KEP-753).
    """
    total = _together(spec, _requests)
    other = {name: value for name, value in total.items() if name not in ("cpu", "memory", "ephemeral-storage")}
    return Resources(
        cpu=total.get("cpu", 0),
        memory=total.get("memory", 0),
        ephemeral=total.get("ephemeral-storage", 0),
        other=tuple(sorted((name, value) for name, value in other.items() if value)),
    )


def _together(spec: pod_pb2.PodSpec, of: Callable[[container_pb2.Container], Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for container in spec.containers:
        _add(total, of(container))
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.initContainers:
        wanted = of(container)
        if container.restartPolicy == "Always":
            _add(total, wanted)
            _add(sidecars, wanted)
            _raise_to(peak, sidecars)
        else:
            _raise_to(peak, {name: wanted.get(name, 0) + sidecars.get(name, 0) for name in {*wanted, *sidecars}})
    _raise_to(total, peak)
    _add(total, {name: _amount(name, value) for name, value in spec.overhead.items()})
    return total


def _requests(container: container_pb2.Container) -> dict[str, int]:
    return {name: _amount(name, value) for name, value in container.resources.requests.items()}


@lru_cache(maxsize=8192)
def _amount(name: str, value: str) -> int:
    return quantity.milli(value) if name == "cpu" else quantity.value(value)


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value


def _raise_to(total: dict[str, int], floor: Mapping[str, int]) -> None:
    for name, value in floor.items():
        total[name] = max(total.get(name, 0), value)


def _scored(spec: pod_pb2.PodSpec) -> tuple[int, int]:
    def of(container: container_pb2.Container) -> Mapping[str, int]:
        return {"cpu": SCORED_CPU, "memory": SCORED_MEMORY} | _requests(container)

    total = _together(spec, of)
    return total.get("cpu", 0), total.get("memory", 0)


def _host_ports(spec: pod_pb2.PodSpec) -> tuple[HostPort, ...]:
    found: set[HostPort] = set()
    containers: Iterable[container_pb2.Container] = (*spec.containers, *spec.initContainers)
    for container in containers:
        for port in container.ports:
            number = port.hostPort or (port.containerPort if spec.hostNetwork else 0)
            if number:
                found.add((port.protocol or "TCP", number, port.hostIP or "0.0.0.0"))
    return tuple(sorted(found))


def _group(pod: pod_pb2.Pod) -> Group | None:
    for owner in pod.metadata.ownerReferences:
        if owner.controller:
            return ("owner", owner.uid)
    if not pod.metadata.labels:
        return None
    return ("labels", pod.metadata.namespace, *(f"{k}={v}" for k, v in sorted(pod.metadata.labels.items())))
