"""The columns READY, STATUS and RESTARTS of a pod, exactly as kubectl prints them. Pure.

Source: printPod of Kubernetes 1.31. Two statuses are this system's own: `Unknown` where the pod's node has stopped
reporting, and `NodeLost` where the pod was given up for that, until it is gone.
"""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from podplane.v1 import pod_pb2

NODE_LOST = "NodeLost"
"""status.reason of a pod that was deleted because its node stopped reporting."""

NODE_STATUS_UNKNOWN = "NodeStatusUnknown"
"""Reason of a pod's Ready condition, with status Unknown, while its node does not report."""

_TERMINAL = ("Succeeded", "Failed")


class Ready(NamedTuple):
    """How many containers are ready, of how many; prints as `1/2`."""

    ready: int
    total: int

    def __str__(self) -> str:
        return f"{self.ready}/{self.total}"


class Restarts(NamedTuple):
    """How often the containers were restarted, and when the last one that was had ended (None: never)."""

    total: int
    last: Timestamp | None


def shown(pod: pod_pb2.Pod) -> str:
    """The STATUS column."""
    status = pod.status
    deleted = pod.metadata.HasField("deletionTimestamp")
    if deleted and status.reason == NODE_LOST:
        return NODE_LOST
    if deleted and status.phase not in _TERMINAL:
        return "Terminating"
    if _is_silent(pod):
        return "Unknown"
    initializing = _initializing(pod)
    if initializing is not None and not _is_true(pod, "Initialized"):
        return initializing
    return _of_containers(pod, initializing or _of_pod(pod))


def ready(pod: pod_pb2.Pod) -> Ready:
    """The READY column: containers that are ready, and containers that there are, sidecars included."""
    sidecars = _sidecars(pod)
    count = sum(one.ready and one.started for one in _reached(pod) if one.name in sidecars)
    if _initializing(pod) is None or _is_true(pod, "Initialized"):
        count += sum(one.ready and _kind(one) == "running" for one in pod.status.containerStatuses)
    return Ready(count, len(pod.spec.containers) + len(sidecars))


def restarts(pod: pod_pb2.Pod) -> Restarts:
    """The RESTARTS column: of the init containers while they run, afterwards of sidecars and app containers."""
    if _initializing(pod) is None or _is_true(pod, "Initialized"):
        sidecars = _sidecars(pod)
        counted = [one for one in _reached(pod) if one.name in sidecars] + list(pod.status.containerStatuses)
    else:
        counted = _reached(pod)
    ended = [
        one.lastState.terminated.finishedAt
        for one in counted
        if one.lastState.HasField("terminated") and one.lastState.terminated.HasField("finishedAt")
    ]
    last = max(ended, key=lambda stamp: (stamp.seconds, stamp.nanos), default=None)
    return Restarts(sum(one.restartCount for one in counted), last)


def _is_silent(pod: pod_pb2.Pod) -> bool:
    if pod.status.phase in _TERMINAL:
        return False
    return pod.status.phase == "Unknown" or any(
        one.type == "Ready" and one.status == "Unknown" and one.reason == NODE_STATUS_UNKNOWN
        for one in pod.status.conditions
    )


def _of_pod(pod: pod_pb2.Pod) -> str:
    for condition in pod.status.conditions:
        if condition.type == "PodScheduled" and condition.reason == "SchedulingGated":
            return "SchedulingGated"
    return pod.status.reason or pod.status.phase


def _sidecars(pod: pod_pb2.Pod) -> set[str]:
    return {container.name for container in pod.spec.initContainers if container.restartPolicy == "Always"}


def _is_done(status: pod_pb2.ContainerStatus, sidecars: set[str]) -> bool:
    """True for an init container that holds back nothing any more."""
    if _kind(status) == "terminated" and status.state.terminated.exitCode == 0:
        return True
    return status.name in sidecars and status.started


def _reached(pod: pod_pb2.Pod) -> list[pod_pb2.ContainerStatus]:
    """The init containers up to the first one that is not done, that one included."""
    found: list[pod_pb2.ContainerStatus] = []
    sidecars = _sidecars(pod)
    for status in pod.status.initContainerStatuses:
        found.append(status)
        if not _is_done(status, sidecars):
            break
    return found


def _initializing(pod: pod_pb2.Pod) -> str | None:
    """What the first init container that is not done makes of the status; None where all are."""
    sidecars = _sidecars(pod)
    for index, status in enumerate(pod.status.initContainerStatuses):
        if _is_done(status, sidecars):
            continue
        kind = _kind(status)
        if kind == "terminated":
            return f"Init:{_terminated(status)}"
        if kind == "waiting" and status.state.waiting.reason not in ("", "PodInitializing"):
            return f"Init:{status.state.waiting.reason}"
        return f"Init:{index}/{len(pod.spec.initContainers)}"
    return None


def _of_containers(pod: pod_pb2.Pod, otherwise: str) -> str:
    """The first container that has something to say says it."""
    reason, running = otherwise, False
    for status in reversed(pod.status.containerStatuses):
        kind = _kind(status)
        if kind == "waiting" and status.state.waiting.reason:
            reason = status.state.waiting.reason
        elif kind == "terminated":
            reason = _terminated(status)
        elif kind == "running" and status.ready:
            running = True
    if reason == "Completed" and running:
        return "Running" if _is_true(pod, "Ready") else "NotReady"
    return reason


def _terminated(status: pod_pb2.ContainerStatus) -> str:
    ended = status.state.terminated
    if ended.reason:
        return ended.reason
    return f"Signal:{ended.signal}" if ended.signal else f"ExitCode:{ended.exitCode}"


def _kind(status: pod_pb2.ContainerStatus) -> str:
    """waiting, running or terminated; kubectl asks in this order: waiting, terminated, running."""
    state = status.state
    if state.HasField("terminated"):
        return "terminated"
    if state.HasField("running"):
        return "running"
    return "waiting"


def _is_true(pod: pod_pb2.Pod, condition: str) -> bool:
    return any(one.type == condition and one.status == "True" for one in pod.status.conditions)
