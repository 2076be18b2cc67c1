"""What a node under pressure does not take on. Pure; the kubelet's admission (eviction manager's Admit)."""

from __future__ import annotations

from collections.abc import Collection

from nodeagent.pods.resources import Refusal
from nodeagent.pressure.ranking import CRITICAL
from podplane.qos import qos_class
from podplane.v1.pod_pb2 import Pod

_TAINT = "node.kubernetes.io/memory-pressure"


def refuse(pod: Pod, short: Collection[str]) -> Refusal | None:
    """Why the node does not take the pod while it has these pressure conditions; None where it does."""
    if not short or pod.spec.priority >= CRITICAL:
        return None
    if set(short) == {"MemoryPressure"} and (qos_class(pod.spec) != "BestEffort" or _tolerates(pod)):
        return None
    return Refusal("Evicted", f"The node had condition: [{', '.join(sorted(short))}]. ")


def _tolerates(pod: Pod) -> bool:
    return any(
        one.key in ("", _TAINT) and one.effect in ("", "NoSchedule") and (one.operator == "Exists" or not one.value)
        for one in pod.spec.tolerations
    )
