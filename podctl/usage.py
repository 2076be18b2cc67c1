"""The tables of `podctl top`, as kubectl prints them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from podplane import quantity
from podplane.v1 import metrics_pb2, node_pb2

POD_COLUMNS = ("NAME", "CPU(cores)", "MEMORY(bytes)")
NODE_COLUMNS = ("NAME", "CPU(cores)", "CPU%", "MEMORY(bytes)", "MEMORY%")
UNKNOWN = "<unknown>"
_SUM_RULE = "________"
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Use:
    """cpu in millicores, memory in bytes."""

    cpu: int = 0
    memory: int = 0

    def __add__(self, other: Use) -> Use:
        return Use(self.cpu + other.cpu, self.memory + other.memory)

    def by(self, column: str) -> int:
        """The figure that --sort-by names."""
        return self.cpu if column == "cpu" else self.memory

    @property
    def cells(self) -> list[str]:
        return [f"{self.cpu}m", f"{self.memory // _MIB}Mi"]


def read(usage: Mapping[str, str]) -> Use:
    """The quantities of a metrics object."""
    return Use(quantity.milli(usage.get("cpu", "0")), quantity.value(usage.get("memory", "0")))


def pod_use(pod: metrics_pb2.PodMetrics) -> Use:
    """Of all its containers."""
    return sum((read(container.usage) for container in pod.containers), Use())


@dataclass(frozen=True, slots=True)
class PodTable:
    """What is shown of pods."""

    namespaces: bool = False
    containers: bool = False
    total: bool = False
    sort_by: str = ""

    @property
    def header(self) -> list[str]:
        return ["NAMESPACE"] * self.namespaces + ["POD"] * self.containers + list(POD_COLUMNS)

    def rows(self, pods: Iterable[metrics_pb2.PodMetrics]) -> list[list[str]]:
        """The lines below the header; with `total`, a rule and the sum."""
        found = sorted(pods, key=lambda pod: (pod.metadata.namespace, pod.metadata.name))
        if self.sort_by:
            found.sort(key=lambda pod: pod_use(pod).by(self.sort_by), reverse=True)
        rows = [row for pod in found for row in self._of(pod)]
        if not self.total:
            return rows
        blank = [""] * (self.namespaces + self.containers)
        whole = sum(map(pod_use, found), Use())
        return [*rows, [*blank, "", _SUM_RULE, _SUM_RULE], [*blank, "", *whole.cells]]

    def _of(self, pod: metrics_pb2.PodMetrics) -> list[list[str]]:
        where, name = [pod.metadata.namespace] * self.namespaces, pod.metadata.name
        if not self.containers:
            return [[*where, name, *pod_use(pod).cells]]
        uses = sorted((container.name, read(container.usage)) for container in _by_name(pod))
        if self.sort_by:
            uses.sort(key=lambda use: use[1].by(self.sort_by), reverse=True)
        return [[*where, name, container, *use.cells] for container, use in uses]


def _by_name(pod: metrics_pb2.PodMetrics) -> list[metrics_pb2.ContainerMetrics]:
    return sorted(pod.containers, key=lambda container: container.name)


def node_rows(
    nodes: Iterable[node_pb2.Node], metrics: Sequence[metrics_pb2.NodeMetrics], sort_by: str, *, capacity: bool
) -> list[list[str]]:
    """One line a node; a node that did not answer is shown as unknown, at the end."""
    by_name = {each.metadata.name: each for each in metrics}
    found = sorted(nodes, key=lambda node: node.metadata.name)
    known = [(node, read(by_name[node.metadata.name].usage)) for node in found if node.metadata.name in by_name]
    if sort_by:
        known.sort(key=lambda pair: pair[1].by(sort_by), reverse=True)
    silent = [[node.metadata.name, *[UNKNOWN] * 4] for node in found if node.metadata.name not in by_name]
    return [_node_row(node, use, capacity=capacity) for node, use in known] + silent


def _node_row(node: node_pb2.Node, use: Use, *, capacity: bool) -> list[str]:
    has = read(node.status.capacity if capacity else node.status.allocatable)
    cpu, memory = use.cells
    return [node.metadata.name, cpu, _share(use.cpu, has.cpu), memory, _share(use.memory, has.memory)]


def _share(used: int, of: int) -> str:
    return f"{used * 100 // of}%" if of else UNKNOWN
