"""How a pod's status and a node's report are merged into what the store has. Pure; each changes its first argument.

The agent owns what it reports; conditions of other types belong to others (the scheduler's PodScheduled) and stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from podplane.v1 import node_pb2, pod_pb2

_TERMINAL = ("Succeeded", "Failed")
_KEPT_WHERE_UNSET = ("qosClass", "startTime", "nominatedNodeName")
_STANDARD_LABELS = ("kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch")
_PROTECTED_LABELS = "node-restriction.kubernetes.io/"


def merge_pod_status(pod: pod_pb2.Pod, node: str, reported: pod_pb2.PodStatus) -> bool:
    """Take the report in; False where nothing changes: it is not this node's pod, or its phase has ended already."""
    held = pod.status
    if pod.spec.nodeName != node or (held.phase in _TERMINAL and reported.phase != held.phase):
        return False
    merged = pod_pb2.PodStatus()
    merged.CopyFrom(reported)
    for field in _KEPT_WHERE_UNSET:
        if held.HasField(field) and not reported.HasField(field):  # type: ignore[arg-type]
            _carry(merged, held, field)
    _keep_others(merged.conditions, held.conditions)
    if merged == held:
        return False
    pod.status.CopyFrom(merged)
    return True


def merge_node_status(node: node_pb2.Node, reported: node_pb2.NodeStatus) -> bool:
    """Take the report in, with the transition times of conditions that did not change."""
    merged = node_pb2.NodeStatus()
    merged.CopyFrom(reported)
    held = {condition.type: condition for condition in node.status.conditions}
    for condition in merged.conditions:
        before = held.get(condition.type)
        if before is not None and before.status == condition.status and before.HasField("lastTransitionTime"):
            condition.lastTransitionTime.CopyFrom(before.lastTransitionTime)
        elif not condition.HasField("lastTransitionTime"):
            condition.lastTransitionTime.CopyFrom(condition.lastHeartbeatTime)
    _keep_others(merged.conditions, node.status.conditions)
    if merged == node.status:
        return False
    node.status.CopyFrom(merged)
    return True


def merge_node_identity(node: node_pb2.Node, reported: node_pb2.Node, pod_cidr: str) -> bool:
    """Labels and the pod range of a node; labels that a person has set stay, and a range never changes."""
    changed = False
    wanted = {**reported.metadata.labels, **standard_labels(node.metadata.name, reported.status.nodeInfo)}
    for name, value in wanted.items():
        ours = name in _STANDARD_LABELS or name not in node.metadata.labels
        if ours and not name.startswith(_PROTECTED_LABELS) and node.metadata.labels.get(name) != value:
            node.metadata.labels[name] = value
            changed = True
    if not node.spec.podCIDR and pod_cidr:
        node.spec.podCIDR = pod_cidr
        node.spec.podCIDRs[:] = [pod_cidr]
        changed = True
    return changed


def standard_labels(name: str, info: node_pb2.NodeSystemInfo) -> dict[str, str]:
    """The labels that every node of Kubernetes has."""
    labels = {"kubernetes.io/hostname": name}
    if info.operatingSystem:
        labels["kubernetes.io/os"] = info.operatingSystem
    if info.architecture:
        labels["kubernetes.io/arch"] = info.architecture
    return labels


def _keep_others(merged: Any, held: Iterable[Any]) -> None:
    reported = {condition.type for condition in merged}
    merged.extend(condition for condition in held if condition.type not in reported)


def _carry(merged: Any, held: Any, field: str) -> None:
    if held.DESCRIPTOR.fields_by_name[field].message_type is None:
        setattr(merged, field, getattr(held, field))
    else:
        getattr(merged, field).CopyFrom(getattr(held, field))
