"""Where a pod may run: each filter is a plain function, and its answer is the reason why not, or None.

The words and the order of the groups are Kubernetes' (NodeUnschedulable, NodeName, TaintToleration, NodeAffinity,
NodePorts, NodeResourcesFit): within the first group that refuses a node, every reason counts.
"""

from __future__ import annotations

from collections.abc import Callable

from controlplane.scheduler.nodeinfo import NodeInfo
from controlplane.scheduler.podinfo import PodInfo, Shape
from controlplane.scheduler.terms import Taint, term_matches, tolerates, untolerated

Filter = Callable[[Shape, NodeInfo], str | None]

UNSCHEDULABLE = "node(s) were unschedulable"
NODE_NAME = "node(s) didn't match the requested node name"
NODE_AFFINITY = "node(s) didn't match Pod's node affinity/selector"
NODE_PORTS = "node(s) didn't have free ports for the requested pod ports"
TAINT = "node(s) had untolerated taint"
TOO_MANY_PODS = "Too many pods"
_CORDON = Taint("node.kubernetes.io/unschedulable", "", "NoSchedule")
HARD_EFFECTS = ("NoSchedule", "NoExecute")


def cordoned(pod: Shape, node: NodeInfo) -> str | None:
    """A cordoned node takes only pods that tolerate the cordon."""
    if not node.unschedulable or any(tolerates(each, _CORDON) for each in pod.tolerations):
        return None
    return UNSCHEDULABLE


def node_name(pod: Shape, node: NodeInfo) -> str | None:
    """spec.nodeName, for callers that ask about a pod which names its node."""
    return NODE_NAME if pod.node_name and pod.node_name != node.name else None


def taints(pod: Shape, node: NodeInfo) -> str | None:
    """NoSchedule and NoExecute taints, which is also how a node that is not ready or silent is kept out."""
    if not node.taints:
        return None
    taint = untolerated(node.taints, pod.tolerations, HARD_EFFECTS)
    return f"{TAINT} {{{taint.key}: {taint.value}}}" if taint else None


def node_affinity(pod: Shape, node: NodeInfo) -> str | None:
    """nodeSelector, and one of the terms of the required node affinity."""
    labels = node.labels
    if any(labels.get(key) != value for key, value in pod.node_selector):
        return NODE_AFFINITY
    if pod.required is None or any(term_matches(term, labels, node.name) for term in pod.required):
        return None
    return NODE_AFFINITY


def host_ports(pod: Shape, node: NodeInfo) -> str | None:
    """No two pods of a node hold the same host port."""
    return NODE_PORTS if any(node.port_taken(port) for port in pod.host_ports) else None


def pod_count(_pod: Shape, node: NodeInfo) -> str | None:
    """The node's allocatable `pods`."""
    return TOO_MANY_PODS if node.pods >= node.max_pods else None


def cpu(pod: Shape, node: NodeInfo) -> str | None:
    wanted = pod.requests.cpu
    return "Insufficient cpu" if wanted and wanted > node.cpu - node.used_cpu else None


def memory(pod: Shape, node: NodeInfo) -> str | None:
    wanted = pod.requests.memory
    return "Insufficient memory" if wanted and wanted > node.memory - node.used_memory else None


def ephemeral_storage(pod: Shape, node: NodeInfo) -> str | None:
    wanted = pod.requests.ephemeral
    return "Insufficient ephemeral-storage" if wanted and wanted > node.ephemeral - node.used_ephemeral else None


def extended(pod: Shape, node: NodeInfo) -> str | None:
    """Any other resource that the node advertises: the first that does not suffice."""
    for name, wanted in pod.requests.other:
        if wanted > node.other.get(name, 0) - node.used_other[name]:
            return f"Insufficient {name}"
    return None


STATIC: tuple[Filter, ...] = (cordoned, node_name, taints, node_affinity)
"""Depend on the Node alone, not on what runs there. Each is a group of its own."""
FIT: tuple[Filter, ...] = (pod_count, cpu, memory, ephemeral_storage, extended)


def reasons(pod: Shape, node: NodeInfo) -> tuple[str, ...]:
    """Why the pod cannot run on the node; empty where it can."""
    for refuse in STATIC:
        if reason := refuse(pod, node):
            return (reason,)
    if pod.host_ports and (reason := host_ports(pod, node)):
        return (reason,)
    return tuple(reason for refuse in FIT if (reason := refuse(pod, node)))


def fits(pod: PodInfo, node: NodeInfo) -> bool:
    """Whether the pod can run on the node."""
    return not reasons(pod.shape, node)
