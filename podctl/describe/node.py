"""A node as `describe` shows it, with the pods on it and what they request. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from podctl.describe.writer import NONE, Writer
from podctl.durations import age, rfc1123
from podctl.tables import node_roles
from podplane import quantity
from podplane.v1 import node_pb2

_SYSTEM = (
    ("Machine ID", "machineID"),
    ("System UUID", "systemUUID"),
    ("Boot ID", "bootID"),
    ("Kernel Version", "kernelVersion"),
    ("OS Image", "osImage"),
    ("Operating System", "operatingSystem"),
    ("Architecture", "architecture"),
    ("Container Runtime Version", "containerRuntimeVersion"),
    ("Kubelet Version", "kubeletVersion"),
    ("Kube-Proxy Version", "kubeProxyVersion"),
)


def describe_node(writer: Writer, node: node_pb2.Node, pods: Sequence[Any], now: float) -> None:
    """Everything but the events; `pods` are those bound to the node."""
    writer.field(0, "Name", node.metadata.name)
    writer.field(0, "Roles", node_roles(node))
    writer.pairs(0, "Labels", node.metadata.labels)
    writer.annotations(0, node.metadata.annotations)
    writer.field(0, "CreationTimestamp", rfc1123(node.metadata.creationTimestamp))
    _taints(writer, node)
    writer.field(0, "Unschedulable", str(node.spec.unschedulable).lower())
    _conditions(writer, node)
    writer.block(0, "Addresses", (f"{one.type}:\t{one.address}" for one in node.status.addresses))
    for title, amounts in (("Capacity", node.status.capacity), ("Allocatable", node.status.allocatable)):
        writer.block(0, title, (f"{name}:\t{amount}" for name, amount in sorted(amounts.items())))
    info = node.status.nodeInfo
    writer.block(0, "System Info", (f"{title}:\t{getattr(info, field)}" for title, field in _SYSTEM))
    if node.spec.podCIDR:
        writer.field(0, "PodCIDR", node.spec.podCIDR)
        writer.field(0, "PodCIDRs", ",".join(node.spec.podCIDRs) or node.spec.podCIDR)
    running = [pod for pod in pods if pod.status.phase not in ("Succeeded", "Failed")]
    _pods(writer, node, running, now)
    _allocated(writer, node, running)


def pod_amounts(pod: Any, field: str) -> dict[str, int]:
    """A pod's `requests` or `limits`, cpu in thousandths and the rest in units: the larger of what its app
    containers with its sidecars need together and what any init container needs with the sidecars before it."""
    together: dict[str, int] = {}
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in pod.spec.containers:
        _add(together, _amounts(getattr(container.resources, field)))
    for container in pod.spec.initContainers:
        amounts = _amounts(getattr(container.resources, field))
        if container.restartPolicy == "Always":
            _add(sidecars, amounts)
            amounts = {}
        for name in {*amounts, *sidecars}:
            peak[name] = max(peak.get(name, 0), amounts.get(name, 0) + sidecars.get(name, 0))
    _add(together, sidecars)
    return {name: max(together.get(name, 0), peak.get(name, 0)) for name in {*together, *peak}}


def _amounts(found: Mapping[str, str]) -> dict[str, int]:
    return {name: _amount(name, text) for name, text in found.items()}


def _amount(name: str, text: str) -> int:
    return quantity.milli(text) if name == "cpu" else quantity.value(text)


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


def _share(node: node_pb2.Node, name: str, amount: int) -> str:
    """`500m (25%)`."""
    whole = _amount(name, node.status.allocatable.get(name) or node.status.capacity.get(name) or "0")
    text = quantity.of_milli(amount) if name == "cpu" else quantity.of_value(amount, binary=True)
    return f"{text} ({amount * 100 // whole if whole else 0}%)"


def _taints(writer: Writer, node: node_pb2.Node) -> None:
    taints = [f"{one.key}{f'={one.value}' if one.value else ''}:{one.effect}" for one in node.spec.taints]
    writer.field(0, "Taints", taints[0] if taints else NONE)
    for one in taints[1:]:
        writer.line(0, f"\t{one}")


def _conditions(writer: Writer, node: node_pb2.Node) -> None:
    writer.line(0, "Conditions:")
    rows = [
        [
            one.type,
            one.status,
            rfc1123(one.lastHeartbeatTime),
            rfc1123(one.lastTransitionTime),
            one.reason,
            one.message,
        ]
        for one in node.status.conditions
    ]
    writer.table(1, ("Type", "Status", "LastHeartbeatTime", "LastTransitionTime", "Reason", "Message"), rows)


def _pods(writer: Writer, node: node_pb2.Node, pods: Sequence[Any], now: float) -> None:
    writer.field(0, "Non-terminated Pods", f"({len(pods)} in total)")
    titles = ("Namespace", "Name", "CPU Requests", "CPU Limits", "Memory Requests", "Memory Limits", "Age")
    rows = []
    for pod in pods:
        requests, limits = pod_amounts(pod, "requests"), pod_amounts(pod, "limits")
        shares = [_share(node, name, found.get(name, 0)) for name in ("cpu", "memory") for found in (requests, limits)]
        rows.append([pod.metadata.namespace, pod.metadata.name, *shares, age(pod.metadata.creationTimestamp, now)])
    writer.table(1, titles, rows)


def _allocated(writer: Writer, node: node_pb2.Node, pods: Sequence[Any]) -> None:
    requests: dict[str, int] = {}
    limits: dict[str, int] = {}
    for pod in pods:
        _add(requests, pod_amounts(pod, "requests"))
        _add(limits, pod_amounts(pod, "limits"))
    writer.line(0, "Allocated resources:")
    writer.line(1, "(Total limits may be over 100 percent, i.e., overcommitted.)")
    names = ["cpu", "memory", *sorted({*requests, *limits} - {"cpu", "memory"})]
    rows = [
        [name, _share(node, name, requests.get(name, 0)), _share(node, name, limits.get(name, 0))] for name in names
    ]
    writer.table(1, ("Resource", "Requests", "Limits"), rows)
