"""What controllers ask of objects: whose they are, and what state a pod is in. Pure, in Kubernetes' definitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from google.protobuf.message import Message

from podplane.kinds import Object
from podplane.v1 import apps_pb2, meta_pb2, pod_pb2

AnyMessage = TypeVar("AnyMessage", bound=Message)
Owner = apps_pb2.Deployment | apps_pb2.ReplicaSet
ObjectKey = tuple[str, str]
"""namespace, name."""


def copy_of(message: AnyMessage) -> AnyMessage:
    """A private copy of a shared message."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def set_counts(message: Message, counts: Mapping[str, int]) -> None:
    """Set these fields; one that is 0 is left out, as in Kubernetes' JSON."""
    for name, count in counts.items():
        if count:
            setattr(message, name, count)


def key_of(obj: Object) -> ObjectKey:
    """Namespace and name."""
    return obj.metadata.namespace, obj.metadata.name


def controller_of(meta: meta_pb2.ObjectMeta) -> meta_pb2.OwnerReference | None:
    """The one owner that manages the object."""
    return next((owner for owner in meta.ownerReferences if owner.controller), None)


def controlled_by(meta: meta_pb2.ObjectMeta, uid: str) -> bool:
    """Whether this very object manages the other."""
    owner = controller_of(meta)
    return owner is not None and owner.uid == uid


def adopt(obj: Object, owner: Owner) -> bool:
    """Make `owner` the managing controller of an object; False where it has one, or is going."""
    if controller_of(obj.metadata) is not None or is_terminating(obj):
        return False
    own(obj.metadata, owner)
    return True


def own(meta: meta_pb2.ObjectMeta, owner: Owner) -> None:
    """Make `owner` the managing controller of an object that has none."""
    meta.ownerReferences.add(
        apiVersion="apps/v1",
        kind=owner.DESCRIPTOR.name,
        name=owner.metadata.name,
        uid=owner.metadata.uid,
        controller=True,
        blockOwnerDeletion=True,
    )


def disown(meta: meta_pb2.ObjectMeta, uid: str) -> bool:
    """Remove the references to that owner; False where there are none."""
    kept = [owner for owner in meta.ownerReferences if owner.uid != uid]
    changed = len(kept) != len(meta.ownerReferences)
    if changed:
        del meta.ownerReferences[:]
        meta.ownerReferences.extend(kept)
    return changed


def is_terminating(obj: Object) -> bool:
    """Deletion has begun."""
    return obj.metadata.HasField("deletionTimestamp")


def is_finished(pod: pod_pb2.Pod) -> bool:
    """Succeeded or Failed: it will never run again."""
    return pod.status.phase in ("Succeeded", "Failed")


def is_active(pod: pod_pb2.Pod) -> bool:
    """It counts as a replica: neither finished nor going."""
    return not is_finished(pod) and not is_terminating(pod)


def pod_condition(pod: pod_pb2.Pod, type: str) -> pod_pb2.PodCondition | None:
    """The pod's condition of that type."""
    return next((each for each in pod.status.conditions if each.type == type), None)


def is_ready(pod: pod_pb2.Pod) -> bool:
    """Its Ready condition is True."""
    condition = pod_condition(pod, "Ready")
    return condition is not None and condition.status == "True"


def available_at(pod: pod_pb2.Pod, min_ready: int) -> float | None:
    """When a ready pod is or becomes available (minReadySeconds after it became ready); None: it is not ready."""
    condition = pod_condition(pod, "Ready")
    if condition is None or condition.status != "True":
        return None
    return float(condition.lastTransitionTime.seconds + min_ready) if min_ready else 0.0


def is_available(pod: pod_pb2.Pod, min_ready: int, now: float) -> bool:
    """Ready for minReadySeconds."""
    at = available_at(pod, min_ready)
    return at is not None and at <= now
