"""What a ReplicaSet has to do, and which pods it can spare first. Pure, after Kubernetes' replica_set.go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from controlplane.controllers.facts import (
    available_at,
    controller_of,
    copy_of,
    is_active,
    is_available,
    is_ready,
    is_terminating,
    own,
    pod_condition,
    set_counts,
)
from podplane import selectors
from podplane.times import stamp
from podplane.v1 import apps_pb2, pod_pb2

BURST = 500
"""Pods created or deleted in one go; the next ones follow at once, after a look at what came of these."""
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_PHASES = {"Pending": 0, "": 0, "Unknown": 1}


@dataclass(frozen=True, slots=True)
class Plan:
    """How many pods to create, or which to delete; never both."""

    create: int = 0
    delete: tuple[pod_pb2.Pod, ...] = ()


def wanted(owner: apps_pb2.ReplicaSet) -> int:
    """spec.replicas, 1 where it is unset."""
    return owner.spec.replicas if owner.spec.HasField("replicas") else 1


def plan(owner: apps_pb2.ReplicaSet, pods: Iterable[pod_pb2.Pod], siblings: Iterable[pod_pb2.Pod]) -> Plan:
    """`pods` are the set's own, `siblings` those of all sets of its deployment."""
    active = [pod for pod in pods if is_active(pod)]
    surplus = len(active) - wanted(owner)
    if surplus < 0:
        return Plan(create=min(-surplus, BURST))
    return Plan(delete=tuple(spare(active, siblings)[: min(surplus, BURST)]))


def spare(pods: Sequence[pod_pb2.Pod], siblings: Iterable[pod_pb2.Pod]) -> list[pod_pb2.Pod]:
    """The pods, those first that can be spared most (Kubernetes' ActivePodsWithRanks).

    Not yet assigned; pending; not ready; of lower deletion cost; on a node with more pods of the same deployment;
    ready for a shorter time; restarted more often; younger.
    """
    crowd = Counter(pod.spec.nodeName for pod in siblings if is_active(pod) and pod.spec.nodeName)

    def rank(pod: pod_pb2.Pod) -> tuple[object, ...]:
        restarts = max((each.restartCount for each in pod.status.containerStatuses), default=0)
        return (
            bool(pod.spec.nodeName),
            _PHASES.get(pod.status.phase, 2),
            is_ready(pod),
            _cost(pod),
            -crowd[pod.spec.nodeName],
            -_ready_since(pod),
            -restarts,
            -pod.metadata.creationTimestamp.seconds,
            pod.metadata.name,
        )

    return sorted(pods, key=rank)


def _cost(pod: pod_pb2.Pod) -> int:
    try:
        return int(pod.metadata.annotations.get(DELETION_COST, "0"))
    except ValueError:
        return 0


def _ready_since(pod: pod_pb2.Pod) -> int:
    condition = pod_condition(pod, "Ready")
    return condition.lastTransitionTime.seconds if condition is not None and condition.status == "True" else 0


def selects(owner: apps_pb2.ReplicaSet, pod: pod_pb2.Pod) -> bool:
    """Whether the set's selector matches the pod."""
    return selectors.from_message(owner.spec.selector).matches(pod.metadata.labels)


def adopts(owner: apps_pb2.ReplicaSet, selector: selectors.Selector, pod: pod_pb2.Pod) -> bool:
    """Whether the set takes this pod as its own: an orphan that it selects and that is not on its way out."""
    return (
        not is_terminating(owner)
        and is_active(pod)
        and controller_of(pod.metadata) is None
        and selector.matches(pod.metadata.labels)
    )


def new_pod(owner: apps_pb2.ReplicaSet) -> pod_pb2.Pod:
    """A pod of the set's template; the server completes its name."""
    template = owner.spec.template
    pod = pod_pb2.Pod(apiVersion="v1", kind="Pod")
    pod.metadata.generateName = f"{owner.metadata.name}-"
    pod.metadata.namespace = owner.metadata.namespace
    pod.metadata.labels.update(template.metadata.labels)
    pod.metadata.annotations.update(template.metadata.annotations)
    pod.metadata.finalizers.extend(template.metadata.finalizers)
    own(pod.metadata, owner)
    pod.spec.CopyFrom(template.spec)
    return pod


def status(
    owner: apps_pb2.ReplicaSet, pods: Iterable[pod_pb2.Pod], failure: str | None, now: float
) -> apps_pb2.ReplicaSetStatus:
    """The set's status. Counts of 0 are left out, as in Kubernetes' JSON, but for `replicas`."""
    active = [pod for pod in pods if is_active(pod)]
    template = dict(owner.spec.template.metadata.labels)
    counts = {
        "fullyLabeledReplicas": sum(template.items() <= dict(pod.metadata.labels).items() for pod in active),
        "readyReplicas": sum(map(is_ready, active)),
        "availableReplicas": sum(is_available(pod, owner.spec.minReadySeconds, now) for pod in active),
        "observedGeneration": owner.metadata.generation,
    }
    new = apps_pb2.ReplicaSetStatus(replicas=len(active))
    set_counts(new, counts)
    new.conditions.extend(copy_of(each) for each in owner.status.conditions if each.type != "ReplicaFailure")
    if failure is not None:
        _add_failure(new, owner.status, failure, now)
    return new


def _add_failure(new: apps_pb2.ReplicaSetStatus, old: apps_pb2.ReplicaSetStatus, failure: str, now: float) -> None:
    before = next((each for each in old.conditions if each.type == "ReplicaFailure"), None)
    condition = new.conditions.add(type="ReplicaFailure", status="True", reason="FailedCreate", message=failure)
    since = before.lastTransitionTime if before is not None else stamp(now)
    condition.lastTransitionTime.CopyFrom(since)


def next_available(owner: apps_pb2.ReplicaSet, pods: Iterable[pod_pb2.Pod], now: float) -> float | None:
    """In how many seconds the next ready pod becomes available (minReadySeconds); None where none waits for that."""
    times = [available_at(pod, owner.spec.minReadySeconds) for pod in pods if is_active(pod)]
    return min((at - now for at in times if at is not None and at > now), default=None)
