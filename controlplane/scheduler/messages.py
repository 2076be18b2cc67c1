"""Why a pod is Unschedulable, in Kubernetes' words, and one sentence on what would have to change. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from controlplane.scheduler import filters
from controlplane.scheduler.nodeinfo import NodeInfo
from controlplane.scheduler.podinfo import Shape
from controlplane.scheduler.terms import untolerated

NO_NODES = "no nodes available to schedule pods"
Refusals = Mapping[str, Sequence[str]]
"""Per node name, the reasons that kept the pod out."""

_MIB = 1024 * 1024


def diagnose(shape: Shape, nodes: Mapping[str, NodeInfo], refusals: Refusals) -> str:
    """The message of the PodScheduled condition and of the FailedScheduling event."""
    if not nodes:
        return NO_NODES
    return f"{summary(len(nodes), refusals)} {hint(shape, nodes, refusals)}"


def summary(total: int, refusals: Refusals) -> str:
    """`0/3 nodes are available: 1 Insufficient cpu, 2 node(s) ...`, sorted as text, as Kubernetes does."""
    counts = Counter(reason for each in refusals.values() for reason in each)
    return f"0/{total} nodes are available: {', '.join(sorted(f'{n} {reason}' for reason, n in counts.items()))}."


def hint(shape: Shape, nodes: Mapping[str, NodeInfo], refusals: Refusals) -> str:
    """What would have to change on the node that needs the least."""
    nearest = min(refusals, key=lambda name: (_distance(shape, nodes[name], refusals[name]), name))
    return _advice(shape, nodes[nearest], refusals[nearest])


def _distance(shape: Shape, node: NodeInfo, reasons: Sequence[str]) -> tuple[int, float]:
    """Room comes free by itself, so it is nearest; then ports, a cordon, a taint, labels: (class, share missing)."""
    first = reasons[0]
    if first == filters.NODE_PORTS:
        return (1, 0.0)
    if first == filters.UNSCHEDULABLE:
        return (2, 0.0)
    if first.startswith(filters.TAINT):
        return (3, 0.0)
    if first in (filters.NODE_AFFINITY, filters.NODE_NAME):
        return (4, 0.0)
    if _never_fits(shape, node):
        return (5, float(len(reasons)))
    return (0, sum(_missing_share(shape, node, reason) for reason in reasons))


def _never_fits(shape: Shape, node: NodeInfo) -> bool:
    wanted = shape.requests
    return wanted.cpu > node.cpu or wanted.memory > node.memory or wanted.ephemeral > node.ephemeral


def _missing_share(shape: Shape, node: NodeInfo, reason: str) -> float:
    wanted = shape.requests
    match reason:
        case "Insufficient cpu":
            return (wanted.cpu - node.cpu + node.used_cpu) / max(1, node.cpu)
        case "Insufficient memory":
            return (wanted.memory - node.memory + node.used_memory) / max(1, node.memory)
        case "Insufficient ephemeral-storage":
            return (wanted.ephemeral - node.ephemeral + node.used_ephemeral) / max(1, node.ephemeral)
    return 1.0


def _advice(shape: Shape, node: NodeInfo, reasons: Sequence[str]) -> str:
    first = reasons[0]
    if first == filters.UNSCHEDULABLE:
        return f"Nearest is {node.name}: uncordon it."
    if first.startswith(filters.TAINT):
        return _taint_advice(shape, node)
    if first == filters.NODE_NAME:
        return f"Nearest is {node.name}: the pod asks for {shape.node_name}."
    if first == filters.NODE_AFFINITY:
        return _label_advice(shape, node)
    if first == filters.NODE_PORTS:
        taken = next(
            f"{number}/{protocol}"
            for protocol, number, ip in shape.host_ports
            if node.port_taken((protocol, number, ip))
        )
        return f"Nearest is {node.name}: free its host port {taken}."
    return f"Nearest is {node.name}: {', '.join(_room_advice(shape, node, reason) for reason in reasons)}."


def _taint_advice(shape: Shape, node: NodeInfo) -> str:
    taint = untolerated(node.taints, shape.tolerations, filters.HARD_EFFECTS)
    if taint is None:
        return f"Nearest is {node.name}."
    if taint.key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        return f"Nearest is {node.name}: it has to become Ready."
    text = f"{taint.key}={taint.value}" if taint.value else taint.key
    return f"Nearest is {node.name}: tolerate or remove its taint {text}:{taint.effect}."


def _label_advice(shape: Shape, node: NodeInfo) -> str:
    for key, value in shape.node_selector:
        if node.labels.get(key) != value:
            return f"Nearest is {node.name}: label it {key}={value}, or change the pod's nodeSelector."
    return f"Nearest is {node.name}: label it as the pod's required node affinity asks, or change the affinity."


def _room_advice(shape: Shape, node: NodeInfo, reason: str) -> str:
    wanted = shape.requests
    match reason:
        case filters.TOO_MANY_PODS:
            return f"it runs {node.pods} of at most {node.max_pods} pods"
        case "Insufficient cpu":
            return _room("cpu", f"{wanted.cpu}m", f"{max(0, node.cpu - node.used_cpu)}m", wanted.cpu > node.cpu)
        case "Insufficient memory":
            free = max(0, node.memory - node.used_memory)
            return _room("memory", _size(wanted.memory), _size(free), wanted.memory > node.memory)
        case "Insufficient ephemeral-storage":
            free = max(0, node.ephemeral - node.used_ephemeral)
            text = _size(wanted.ephemeral), _size(free)
            return _room("ephemeral-storage", *text, wanted.ephemeral > node.ephemeral)
    return f"free more {reason.removeprefix('Insufficient ')}"


def _room(resource: str, wanted: str, free: str, never: bool) -> str:
    if never:
        return f"request less {resource} than {wanted}, it is smaller than that"
    return f"free {resource} for {wanted} (now {free}), or request less"


def _size(number: int) -> str:
    return f"{number // _MIB}Mi" if number % _MIB == 0 or number > 10 * _MIB else str(number)
