"""The quality of service of a pod: who is throttled and killed first when a node runs short. Pure."""

from __future__ import annotations

from podplane import quantity
from podplane.v1 import pod_pb2

_COUNTED = ("cpu", "memory")


def qos_class(spec: pod_pb2.PodSpec) -> str:
    """Guaranteed: every container limits CPU and memory and requests just that. BestEffort: none asks for any."""
    containers = [*spec.containers, *spec.initContainers]
    if not any(
        _amount(one, name)
        for c in containers
        for one in (c.resources.requests, c.resources.limits)
        for name in _COUNTED
    ):
        return "BestEffort"
    for container in containers:
        for name in _COUNTED:
            limit = _amount(container.resources.limits, name)
            request = _amount(container.resources.requests, name)
            if not limit or (request or limit) != limit:
                return "Burstable"
    return "Guaranteed"


def _amount(resources: object, name: str) -> int:
    text = resources.get(name, "")  # type: ignore[attr-defined]
    return quantity.milli(text) if text else 0
