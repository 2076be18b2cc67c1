"""Which pod goes first when the node is short of something, which pod is beyond its own limits, and the words. Pure.

Order, words and exceptions are the kubelet's (pkg/kubelet/eviction): whoever uses more than requested, then the lower
priority, then who uses most beyond the request. One rule is ours: for the sake of the disk, a pod that holds next to
nothing of it is not evicted, since that would make no room.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nodeagent.pods.resources import amount, container_request, pod_request, sum_of_limits
from nodeagent.pressure.thresholds import DISK, INODES, MEMORY, PIDS, RESOURCES, Signal, Threshold
from podplane import quantity
from podplane.v1.container_pb2 import Container
from podplane.v1.pod_pb2 import Pod, PodSpec

CRITICAL = 2_000_000_000
"""Priority from which on a pod is the system's, and never evicted."""
WORTHWHILE = {DISK: 1 << 20, INODES: 100, MEMORY: 0, PIDS: 0}


@dataclass(frozen=True, slots=True)
class ContainerUse:
    """memory: working set; disk: what it wrote to its root filesystem and its log. Bytes."""

    name: str
    memory: int = 0
    disk: int = 0


@dataclass(frozen=True, slots=True)
class PodUse:
    """What one pod uses now. disk and inodes count its containers and volumes; volumes: bytes on the disk by name."""

    pod: Pod
    memory: int = 0
    disk: int = 0
    inodes: int = 0
    pids: int = 0
    containers: tuple[ContainerUse, ...] = ()
    volumes: Mapping[str, int] = field(default_factory=dict)

    def of(self, signal: str) -> int:
        """How much it uses of what a signal measures."""
        return {MEMORY: self.memory, DISK: self.disk, INODES: self.inodes, PIDS: self.pids}[signal]


def ranked(uses: Iterable[PodUse], signal: str) -> list[PodUse]:
    """Who may be evicted, the first to go first."""
    name = RESOURCES[signal]

    def key(use: PodUse) -> tuple[bool, int, int]:
        beyond = use.of(signal) - (pod_request(use.pod.spec, name) if signal in (MEMORY, DISK) else 0)
        exceeds = signal in (MEMORY, DISK) and beyond > 0
        return not exceeds, use.pod.spec.priority, -beyond

    return sorted((use for use in uses if _may_go(use, signal)), key=key)


def _may_go(use: PodUse, signal: str) -> bool:
    return use.pod.spec.priority < CRITICAL and use.of(signal) >= WORTHWHILE[signal]


def message(use: PodUse, threshold: Threshold, signal: Signal) -> str:
    """status.message of a pod that goes because `threshold` is crossed."""
    name = RESOURCES[threshold.signal]
    binary = threshold.signal in (MEMORY, DISK)
    wanted, left = threshold.of(signal.capacity), signal.available
    words = f"The node was low on resource: {name}. Threshold quantity: "
    words += f"{quantity.of_value(wanted, binary=binary)}, available: {_left(left, binary)}. "
    return words + "".join(_larger(use, name)) if binary else words


def _left(left: int, binary: bool) -> str:
    return quantity.of_value(left // 1024 * 1024 if binary else left, binary=binary)


def _larger(use: PodUse, name: str) -> Iterator[str]:
    specs = {container.name: container for container in (*use.pod.spec.initContainers, *use.pod.spec.containers)}
    for container in use.containers:
        used = container.memory if name == "memory" else container.disk
        request = amount(name, container_request(specs[container.name], name))
        if used > request:
            yield (
                f"Container {container.name} was using {quantity.of_value(used // 1024 * 1024, binary=True)}, "
                f"request is {quantity.of_value(request, binary=True)}, has larger consumption of {name}. "
            )


def has_disk_limit(spec: PodSpec) -> bool:
    """Whether the pod has to be measured to see that it keeps its limits of local storage."""
    return any(_disk_limit(container) is not None for container in spec.containers) or bool(empty_dir_limits(spec))


def empty_dir_limits(spec: PodSpec) -> dict[str, str]:
    """The sizeLimit of each emptyDir on the disk that has one. In memory the filesystem itself holds it."""
    dirs = {volume.name: volume.emptyDir for volume in spec.volumes if volume.HasField("emptyDir")}
    limits = {name: one.sizeLimit for name, one in dirs.items() if not one.medium and one.sizeLimit}
    return {name: text for name, text in limits.items() if quantity.value(text)}


def beyond_disk_limits(use: PodUse) -> str | None:
    """Why a pod has to go for using more local storage than its own limits allow; None where it does not."""
    for name, text in empty_dir_limits(use.pod.spec).items():
        if use.volumes.get(name, 0) > quantity.value(text):
            return f'Usage of EmptyDir volume "{name}" exceeds the limit "{text}". '
    limit = sum_of_limits(use.pod.spec, "ephemeral-storage")
    if limit and use.disk > limit:
        words = quantity.of_value(limit, binary=True)
        return f"Pod ephemeral local storage usage exceeds the total limit of containers {words}. "
    return next(_beyond_own(use.containers, use.pod.spec), None)


def _beyond_own(uses: Sequence[ContainerUse], spec: PodSpec) -> Iterator[str]:
    limits: Mapping[str, int | None] = {container.name: _disk_limit(container) for container in spec.containers}
    for use in uses:
        limit = limits.get(use.name)
        if limit is not None and use.disk > limit:
            words = quantity.of_value(limit, binary=True)
            yield f'Container {use.name} exceeded its local ephemeral storage limit "{words}". '


def _disk_limit(container: Container) -> int | None:
    text = container.resources.limits.get("ephemeral-storage", "")
    return amount("ephemeral-storage", text) if text else None
