"""Where a pod runs best: each score is a plain function of one pod shape and one node, 0 to MAX.

No score depends on the other nodes (Kubernetes normalises some by the best node): so a placement changes the
score of one node only, and a ranking stays exact without looking at all nodes again.
"""

from __future__ import annotations

from controlplane.scheduler.nodeinfo import NodeInfo
from controlplane.scheduler.podinfo import Shape
from controlplane.scheduler.terms import term_matches, untolerated

MAX = 10_000


def least_allocated(pod: Shape, node: NodeInfo) -> int:
    """The free share of cpu and memory, on average, with this pod on the node."""
    return (
        _free(node.cpu, node.scored_cpu + pod.scored_cpu) + _free(node.memory, node.scored_memory + pod.scored_memory)
    ) // 2


def _free(offered: int, used: int) -> int:
    return (offered - used) * MAX // offered if offered > used else 0


def crowding(same_group: int) -> int:
    """What a node loses that has so many pods of the same controller (or of the same labels): spread, weight 2."""
    return 2 * (MAX - MAX // (1 + same_group))


def preferred_affinity(pod: Shape, node: NodeInfo) -> int:
    """The weight of the preferred terms that match, as a share of all of it."""
    total = sum(weight for weight, _ in pod.preferred)
    if not total:
        return 0
    matched = sum(weight for weight, term in pod.preferred if term_matches(term, node.labels, node.name))
    return matched * MAX // total


def soft_taints(pod: Shape, node: NodeInfo) -> int:
    """Fewer PreferNoSchedule taints that the pod does not tolerate are better."""
    if not node.taints:
        return MAX
    count = sum(untolerated((taint,), pod.tolerations, ("PreferNoSchedule",)) is not None for taint in node.taints)
    return MAX // (1 + count)


def score(pod: Shape, node: NodeInfo) -> int:
    """All but `crowding`, with Kubernetes' default weights."""
    return (
        least_allocated(pod, node)
        + 2 * (MAX + (preferred_affinity(pod, node) if pod.preferred else 0))
        + 3 * soft_taints(pod, node)
    )
