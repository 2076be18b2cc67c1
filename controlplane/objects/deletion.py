"""What a delete does to an object: gone at once, or marked and gone later. Pure.

delete ──► marked (deletionTimestamp) ──► gone
   │          waits for: finalizers to be emptied by those who set them,
   │                     a bound pod's node to report that its processes have ended (remove),
   │                     a namespace's controller to have emptied it (remove)
   └────────────────────────────────────► gone, where there is nothing to wait for
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from controlplane.objects import words
from controlplane.objects.metadata import copy_of, metadata_of
from podplane.errors import FieldError
from podplane.kinds import NAMESPACE, POD, Kind
from podplane.v1 import meta_pb2

DEFAULT_GRACE = 30
"""Seconds, where a pod's spec has no terminationGracePeriodSeconds (core/v1 PodSpec)."""

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
"""The finalizers by which the garbage controller is asked to delete, or to let go of, dependents first."""

_FINALIZERS = {"Background": None, "Foreground": FOREGROUND, "Orphan": ORPHAN}
_KEPT_NAMESPACES = ("default", "kube-system", "kube-public")


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """How a delete is meant (meta/v1 DeleteOptions). `grace` in seconds; None takes the object's own."""

    grace: int | None = None
    propagation: str = "Background"

    def check(self, kind: Kind, name: str) -> None:
        wrong = []
        if self.grace is not None and self.grace < 0:
            wrong.append(FieldError("gracePeriodSeconds", f"Invalid value: {self.grace}: must be 0 or more"))
        if self.propagation not in _FINALIZERS:
            reason = f'Unsupported value: "{self.propagation}": supported values: {", ".join(_FINALIZERS)}'
            wrong.append(FieldError("propagationPolicy", reason))
        if wrong:
            raise words.invalid(kind, name, wrong)
        if kind is NAMESPACE and name in _KEPT_NAMESPACES:
            raise words.forbidden(kind, name, "this namespace may not be deleted")


def marked(live: Message, kind: Kind, options: DeleteOptions, now: float) -> Any:
    """The object as the delete leaves it; where `is_over` holds of it, it goes at once."""
    new = copy_of(live)
    metadata = metadata_of(new)
    began = metadata.HasField("deletionTimestamp")
    _set_propagation(metadata, options.propagation, began)
    if kind is NAMESPACE:
        new.status.phase = "Terminating"
    grace = _grace(live, kind, options.grace)
    if not began:
        metadata.deletionTimestamp.FromSeconds(int(now) + grace)
        if kind is not NAMESPACE:
            metadata.deletionGracePeriodSeconds = grace
        if metadata.generation:
            metadata.generation += 1
    elif grace < metadata.deletionGracePeriodSeconds:  # a later delete may only hasten the end
        started = metadata.deletionTimestamp.seconds - metadata.deletionGracePeriodSeconds
        metadata.deletionTimestamp.FromSeconds(started + grace)
        metadata.deletionGracePeriodSeconds = grace
    return new


def is_over(obj: Message) -> bool:
    """True for an object whose deletion has begun and that nothing holds any more.

    deletionGracePeriodSeconds is 0 once no process and no content of the object is left to wait for.
    """
    metadata = metadata_of(obj)
    graceless = metadata.HasField("deletionGracePeriodSeconds") and metadata.deletionGracePeriodSeconds == 0
    return metadata.HasField("deletionTimestamp") and graceless and not metadata.finalizers


def released(live: Message) -> Any:
    """A deleted object whose last processes or contents are gone, but that finalizers still hold."""
    new = copy_of(live)
    metadata_of(new).deletionGracePeriodSeconds = 0
    return new


def _grace(live: Any, kind: Kind, asked: int | None) -> int:
    """Seconds that the object has left. Only pods that may have processes on a node need any."""
    if kind is not POD or not live.spec.nodeName or live.status.phase in ("Succeeded", "Failed"):
        return 0
    if asked is not None:
        return asked
    own = live.spec.terminationGracePeriodSeconds if live.spec.HasField("terminationGracePeriodSeconds") else None
    return DEFAULT_GRACE if own is None else max(own, 0)


def _set_propagation(metadata: meta_pb2.ObjectMeta, propagation: str, began: bool) -> None:
    wanted = _FINALIZERS[propagation]
    if wanted is None and began:
        return  # a second, plain delete does not take back what the first one asked for
    kept = [name for name in metadata.finalizers if name not in (FOREGROUND, ORPHAN)]
    del metadata.finalizers[:]
    metadata.finalizers.extend([*kept, wanted] if wanted else kept)
