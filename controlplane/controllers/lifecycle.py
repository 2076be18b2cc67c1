"""What a node's silence or trouble means for its conditions, its taints and its pods. Pure, after Kubernetes.

Times are seconds on whatever clock the caller uses, the same for all of a call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controlplane.controllers.facts import copy_of, pod_condition
from podplane.times import stamp
from podplane.v1 import node_pb2, pod_pb2, scheduling_pb2

READY = "Ready"
UNKNOWN_REASON = "NodeStatusUnknown"
UNREACHABLE, NOT_READY = "node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"
LOST = "NodeLost"
DISRUPTED_SHARE = 0.55
"""Of the nodes (at least two): when so many are silent, it is rather us or the network than they."""

Taints = frozenset[tuple[str, str]]
"""key, effect."""

_PRESSURE = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
}
_CORDON = "node.kubernetes.io/unschedulable"
_MANAGED = frozenset((UNREACHABLE, NOT_READY, _CORDON, *_PRESSURE.values()))
_BOTH = ("NoSchedule", "NoExecute")


def condition(node: node_pb2.Node, type: str) -> node_pb2.NodeCondition | None:
    """The node's condition of that type."""
    return next((each for each in node.status.conditions if each.type == type), None)


def ready(node: node_pb2.Node) -> str:
    """True, False or Unknown; "" where the agent has not said yet."""
    found = condition(node, READY)
    return found.status if found is not None else ""


def mark_silent(node: node_pb2.Node, now: float) -> bool:
    """Make what the agent used to say Unknown; False where it is so already."""
    changed = False
    for type in (READY, *_PRESSURE):
        found = condition(node, type)
        if found is None and type != READY:
            continue
        if found is None:
            found = node.status.conditions.add(type=type)
        if found.status != "Unknown":
            found.status, found.reason = "Unknown", UNKNOWN_REASON
            found.message = "The node agent stopped posting node status."
            found.lastTransitionTime.CopyFrom(stamp(now))
            changed = True
    return changed


def restore(node: node_pb2.Node, before: Iterable[node_pb2.NodeCondition], now: float) -> bool:
    """Undo `mark_silent`, for an agent that is heard again; what it has reported meanwhile stays."""
    changed = False
    for old in before:
        found = condition(node, old.type)
        if found is not None and (found.status, found.reason) == ("Unknown", UNKNOWN_REASON):
            found.CopyFrom(old)
            found.lastTransitionTime.CopyFrom(stamp(now))
            changed = True
    return changed


def wanted_taints(node: node_pb2.Node) -> Taints:
    """The taints that conditions and cordon call for."""
    state = ready(node)
    found: set[tuple[str, str]] = set()
    if state == "Unknown":
        found.update((UNREACHABLE, effect) for effect in _BOTH)
    elif state != "True":
        found.update((NOT_READY, effect) for effect in _BOTH)
    if node.spec.unschedulable:
        found.add((_CORDON, "NoSchedule"))
    for type, key in _PRESSURE.items():
        pressure = condition(node, type)
        if pressure is not None and pressure.status == "True":
            found.add((key, "NoSchedule"))
    return frozenset(found)


def set_taints(node: node_pb2.Node, now: float) -> bool:
    """Set the taints that are ours to set, leave all others; False where they are right."""
    wanted = wanted_taints(node)
    present = {(each.key, each.effect) for each in node.spec.taints if each.key in _MANAGED}
    if present == wanted:
        return False
    kept = [copy_of(each) for each in node.spec.taints if each.key not in _MANAGED or (each.key, each.effect) in wanted]
    del node.spec.taints[:]
    node.spec.taints.extend(kept)
    for key, effect in sorted(wanted - present):
        taint = node.spec.taints.add(key=key, effect=effect)
        if effect == "NoExecute":
            taint.timeAdded.CopyFrom(stamp(now))
    return True


def evicting_taints(node: node_pb2.Node) -> list[node_pb2.Taint]:
    """The taints that drive pods away."""
    return [each for each in node.spec.taints if each.effect == "NoExecute"]


def eviction_due(pod: pod_pb2.Pod, taints: Iterable[node_pb2.Taint], since: Mapping[str, float]) -> float | None:
    """When the pod has to go, given since when each taint (by key) is there; None: it tolerates them for ever."""
    times = (_tolerated_until(pod, taint, since[taint.key]) for taint in taints)
    return min((at for at in times if at is not None), default=None)


def _tolerated_until(pod: pod_pb2.Pod, taint: node_pb2.Taint, since: float) -> float | None:
    matching = [each for each in pod.spec.tolerations if _tolerates(each, taint)]
    if not matching:
        return since
    bounded = [each.tolerationSeconds for each in matching if each.HasField("tolerationSeconds")]
    return since + max(0, min(bounded)) if bounded else None


def _tolerates(toleration: scheduling_pb2.Toleration, taint: node_pb2.Taint) -> bool:
    if toleration.effect not in ("", taint.effect) or toleration.key not in ("", taint.key):
        return False
    return toleration.operator == "Exists" or bool(toleration.key and toleration.value == taint.value)


def is_disrupted(silent: int, total: int) -> bool:
    """Whether so many nodes are silent that nothing should be evicted for it."""
    return silent >= 2 and silent >= DISRUPTED_SHARE * total


def mark_unknown(pod: pod_pb2.Pod, node: str, now: float) -> bool:
    """The pod's node is silent: nobody knows whether it is ready. False where it is marked already."""
    found = pod_condition(pod, READY)
    if found is None:
        found = pod.status.conditions.add(type=READY)
    elif (found.status, found.reason) == ("Unknown", UNKNOWN_REASON):
        return False
    found.status, found.reason = "Unknown", UNKNOWN_REASON
    found.message = f"Node {node} has stopped reporting"
    found.lastTransitionTime.CopyFrom(stamp(now))
    return True


def unmark_unknown(pod: pod_pb2.Pod, now: float) -> bool:
    """The node is heard again: the pod is as ready as its containers, which nobody has touched.

    Where no agent has said yet how ready they are, there was no Ready condition before the mark.
    """
    found = pod_condition(pod, READY)
    if found is None or (found.status, found.reason) != ("Unknown", UNKNOWN_REASON):
        return False
    containers = pod_condition(pod, "ContainersReady")
    if containers is None:
        pod.status.conditions.remove(found)
        return True
    found.status = containers.status
    found.ClearField("reason")
    found.ClearField("message")
    if containers.status != "True":
        found.reason, found.message = containers.reason, containers.message
    found.lastTransitionTime.CopyFrom(stamp(now))
    return True


def mark_lost(pod: pod_pb2.Pod, node: str) -> bool:
    """status.reason NodeLost; False where it says so already."""
    if pod.status.reason == LOST:
        return False
    pod.status.reason = LOST
    pod.status.message = f"Node {node} which was running pod {pod.metadata.name} is unresponsive"
    return True
