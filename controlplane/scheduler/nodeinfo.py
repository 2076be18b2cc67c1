"""What the scheduler knows of a node: plain integers, kept up to date pod by pod. No protobuf on the hot path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from controlplane.scheduler.podinfo import Group, HostPort, PodInfo
from controlplane.scheduler.terms import Taint
from podplane import quantity
from podplane.v1 import node_pb2

_NATIVE = frozenset(("cpu", "memory", "ephemeral-storage", "pods"))
ANY_ADDRESS = "0.0.0.0"

_Item = TypeVar("_Item", HostPort, Group)


@dataclass(slots=True, eq=False)
class NodeInfo:
    """A node: what it offers (from the Node), and what its pods take (from the pods bound to or assumed on it)."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False
    cpu: int = 0
    memory: int = 0
    ephemeral: int = 0
    max_pods: int = 0
    other: Mapping[str, int] = field(default_factory=dict)

    pods: int = 0
    used_cpu: int = 0
    used_memory: int = 0
    used_ephemeral: int = 0
    used_other: Counter[str] = field(default_factory=Counter)
    scored_cpu: int = 0
    scored_memory: int = 0
    ports: Counter[HostPort] = field(default_factory=Counter)
    groups: Counter[Group] = field(default_factory=Counter)

    def take(self, pod: PodInfo, sign: int = 1) -> None:
        """Count a pod in (sign 1) or out again (sign -1)."""
        shape, requests = pod.shape, pod.shape.requests
        self.pods += sign
        self.used_cpu += sign * requests.cpu
        self.used_memory += sign * requests.memory
        self.used_ephemeral += sign * requests.ephemeral
        self.scored_cpu += sign * shape.scored_cpu
        self.scored_memory += sign * shape.scored_memory
        for name, value in requests.other:
            self.used_other[name] += sign * value
        for port in shape.host_ports:
            _count(self.ports, port, sign)
        if shape.group is not None:
            _count(self.groups, shape.group, sign)

    def port_taken(self, wanted: HostPort) -> bool:
        """Whether a pod here holds this port on this address, or on an address that overlaps with it."""
        protocol, number, address = wanted
        if address != ANY_ADDRESS:
            return wanted in self.ports or (protocol, number, ANY_ADDRESS) in self.ports
        return any(held[:2] == (protocol, number) for held in self.ports)


def _count(counter: Counter[_Item], item: _Item, sign: int) -> None:
    counter[item] += sign
    if not counter[item]:
        del counter[item]


def read_node(node: node_pb2.Node, pods: Iterable[PodInfo] = ()) -> NodeInfo:
    """The node with these pods on it. Allocatable where the agent reported it, capacity otherwise."""
    offered = node.status.allocatable or node.status.capacity
    info = NodeInfo(
        name=node.metadata.name,
        labels=dict(node.metadata.labels),
        taints=tuple(Taint(each.key, each.value, each.effect) for each in node.spec.taints),
        unschedulable=node.spec.unschedulable,
        cpu=quantity.milli(offered["cpu"]) if "cpu" in offered else 0,
        memory=quantity.value(offered["memory"]) if "memory" in offered else 0,
        ephemeral=quantity.value(offered["ephemeral-storage"]) if "ephemeral-storage" in offered else 0,
        max_pods=quantity.value(offered["pods"]) if "pods" in offered else 0,
        other={name: quantity.value(value) for name, value in offered.items() if name not in _NATIVE},
    )
    for pod in pods:
        info.take(pod)
    return info
