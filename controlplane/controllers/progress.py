"""A deployment's status: its counts, and whether it is available and gets on. Pure, with Kubernetes' reasons."""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.controllers import rollout
from controlplane.controllers.facts import copy_of, set_counts
from podplane.times import stamp
from podplane.v1 import apps_pb2

NEVER = 2**31 - 1
"""A progressDeadlineSeconds of this is none."""

_COMPLETE, _TIMED_OUT = "NewReplicaSetAvailable", "ProgressDeadlineExceeded"
_PAUSED, _RESUMED = "DeploymentPaused", "DeploymentResumed"

Sets = Sequence[apps_pb2.ReplicaSet]
Status = apps_pb2.DeploymentStatus


def compute(
    deployment: apps_pb2.Deployment, new: apps_pb2.ReplicaSet | None, old: Sets, now: float, *, collisions: int = 0
) -> Status:
    """The status, from the one that is stored and the replica sets as they are."""
    sets = [*old, *([new] if new is not None else [])]
    status = _counts(deployment, new, sets, collisions)
    status.conditions.extend(copy_of(each) for each in deployment.status.conditions if each.type != "ReplicaFailure")
    _set_available(deployment, status, now)
    _set_failure(status, sets)
    if has_deadline(deployment):
        _set_paused(deployment, status, now)
        if not deployment.spec.paused:
            _set_progress(deployment, status, new, now)
    else:
        _remove(status, "Progressing")
    return status


def has_deadline(deployment: apps_pb2.Deployment) -> bool:
    spec = deployment.spec
    return spec.HasField("progressDeadlineSeconds") and spec.progressDeadlineSeconds < NEVER


def condition(status: Status, type: str) -> apps_pb2.DeploymentCondition | None:
    """The condition of that type."""
    return next((each for each in status.conditions if each.type == type), None)


def is_complete(deployment: apps_pb2.Deployment, status: Status) -> bool:
    """All replicas are of the newest template and available, and no other is left."""
    replicas = rollout.wanted(deployment)
    counts = {status.updatedReplicas, status.replicas, status.availableReplicas}
    return counts == {replicas} and status.observedGeneration >= deployment.metadata.generation


def next_check(deployment: apps_pb2.Deployment, status: Status, now: float) -> float | None:
    """In how many seconds the deadline is over; None where none runs."""
    progressing = condition(status, "Progressing")
    if progressing is None or not has_deadline(deployment) or deployment.spec.paused:
        return None
    if progressing.reason in (_COMPLETE, _TIMED_OUT) or is_complete(deployment, status):
        return None
    return max(0.0, progressing.lastUpdateTime.seconds + deployment.spec.progressDeadlineSeconds - now) + 1


def _counts(deployment: apps_pb2.Deployment, new: apps_pb2.ReplicaSet | None, sets: Sets, collisions: int) -> Status:
    available = sum(each.status.availableReplicas for each in sets)
    counts = {
        "observedGeneration": deployment.metadata.generation,
        "replicas": sum(each.status.replicas for each in sets),
        "updatedReplicas": new.status.replicas if new is not None else 0,
        "readyReplicas": sum(each.status.readyReplicas for each in sets),
        "availableReplicas": available,
        "unavailableReplicas": max(0, sum(each.spec.replicas for each in sets) - available),
        "collisionCount": collisions or deployment.status.collisionCount,
    }
    status = Status()
    set_counts(status, counts)
    return status


def _set_available(deployment: apps_pb2.Deployment, status: Status, now: float) -> None:
    if status.availableReplicas >= rollout.bounds(deployment).least:
        words = "MinimumReplicasAvailable", "Deployment has minimum availability."
        _set(status, "Available", "True", *words, now)
    else:
        words = "MinimumReplicasUnavailable", "Deployment does not have minimum availability."
        _set(status, "Available", "False", *words, now)


def _set_failure(status: Status, sets: Sets) -> None:
    failures = (each for one in sets for each in one.status.conditions if each.type == "ReplicaFailure")
    if (failure := next(failures, None)) is None:
        return
    new = status.conditions.add(type="ReplicaFailure", status="True", reason=failure.reason, message=failure.message)
    new.lastTransitionTime.CopyFrom(failure.lastTransitionTime)
    new.lastUpdateTime.CopyFrom(failure.lastTransitionTime)


def _set_paused(deployment: apps_pb2.Deployment, status: Status, now: float) -> None:
    current = condition(status, "Progressing")
    paused = current is not None and current.reason == _PAUSED
    if current is not None and current.reason == _TIMED_OUT:
        return
    if deployment.spec.paused and not paused:
        _set(status, "Progressing", "Unknown", _PAUSED, "Deployment is paused", now)
    elif paused and not deployment.spec.paused:
        _set(status, "Progressing", "Unknown", _RESUMED, "Deployment is resumed", now)


def _set_progress(deployment: apps_pb2.Deployment, status: Status, new: apps_pb2.ReplicaSet | None, now: float) -> None:
    before = condition(status, "Progressing")
    subject = f'ReplicaSet "{new.metadata.name}"' if new else f'Deployment "{deployment.metadata.name}"'
    if before is not None and before.reason == _COMPLETE and status.replicas == status.updatedReplicas:
        return  # done; pods that come and go later are availability, not progress
    if is_complete(deployment, status):
        _set(status, "Progressing", "True", _COMPLETE, f"{subject} has successfully progressed.", now)
    elif before is None:
        words = "NewReplicaSetCreated", f'Created new replica set "{new.metadata.name}"' if new else "Created"
        _set(status, "Progressing", "True", *words, now)
    elif _has_progressed(deployment.status, status):
        _set(status, "Progressing", "True", "ReplicaSetUpdated", f"{subject} is progressing.", now, renew=True)
    elif _is_late(deployment, before, now):
        _set(status, "Progressing", "False", _TIMED_OUT, f"{subject} has timed out progressing.", now)


def _has_progressed(before: Status, after: Status) -> bool:
    return (
        after.updatedReplicas > before.updatedReplicas
        or after.replicas - after.updatedReplicas < before.replicas - before.updatedReplicas
        or after.readyReplicas > before.readyReplicas
        or after.availableReplicas > before.availableReplicas
    )


def _is_late(deployment: apps_pb2.Deployment, progressing: apps_pb2.DeploymentCondition, now: float) -> bool:
    if progressing.reason in (_COMPLETE, _TIMED_OUT):
        return progressing.reason == _TIMED_OUT
    return progressing.lastUpdateTime.seconds + deployment.spec.progressDeadlineSeconds < now


def _set(status: Status, type: str, value: str, reason: str, message: str, now: float, *, renew: bool = False) -> None:
    """Set a condition; its times stay where status and reason do, unless `renew` says that there is progress."""
    current = condition(status, type)
    if current is None:
        current = status.conditions.add(type=type)
    if (current.status, current.reason) != (value, reason) or renew:
        current.lastUpdateTime.CopyFrom(stamp(now))
    if current.status != value:
        current.lastTransitionTime.CopyFrom(stamp(now))
    current.status, current.reason, current.message = value, reason, message


def _remove(status: Status, type: str) -> None:
    kept = [copy_of(each) for each in status.conditions if each.type != type]
    del status.conditions[:]
    status.conditions.extend(kept)
