"""What binding does to a pod. Pure."""

from __future__ import annotations

from typing import Any

from controlplane.objects import words
from controlplane.objects.metadata import copy_of
from podplane.kinds import POD
from podplane.times import stamp

SCHEDULED = "PodScheduled"


def bound(live: Any, node: str, now: float) -> Any:
    """The pod on its node (core/v1 Binding). Conflict where it is bound already or being deleted.

    The generation stays: binding completes the spec that was asked for, it does not change it.
    """
    name = live.metadata.name
    if live.metadata.HasField("deletionTimestamp"):
        raise words.cannot(POD, name, f"pod {name} is being deleted, cannot be assigned to a host")
    if live.spec.nodeName:
        raise words.cannot(POD, name, f'pod {name} is already assigned to node "{live.spec.nodeName}"')
    new = copy_of(live)
    new.spec.nodeName = node
    _set_scheduled(new.status, now)
    return new


def _set_scheduled(status: Any, now: float) -> None:
    condition = next((one for one in status.conditions if one.type == SCHEDULED), None)
    if condition is None:
        condition = status.conditions.add(type=SCHEDULED)
    if condition.status != "True":
        condition.status = "True"
        condition.lastTransitionTime.CopyFrom(stamp(now))
    condition.ClearField("reason")
    condition.ClearField("message")
