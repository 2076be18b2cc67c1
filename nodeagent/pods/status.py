"""Machine state to PodStatus, exactly as the kubelet writes it. Pure."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from datetime import UTC, datetime

from nodeagent.pods.conditions import SANDBOX_READY, conditions, is_ready, is_started
from nodeagent.pods.state import EXITED, RUNNING, WAITING, ContainerState, Ended, PodState
from podplane import times
from podplane.v1 import pod_pb2

_POD_MESSAGES = 12 * 1024
stamp = functools.lru_cache(maxsize=1024)(times.stamp)
"""Every status repeats the moments of those before it."""


def pod_status(state: PodState, host_ip: str) -> pod_pb2.PodStatus:
    """The pod's status now. Equal states give equal messages."""
    status = pod_pb2.PodStatus(phase=phase(state), qosClass=state.qos)
    if state.reason and (state.final or state.stopping):
        status.reason, status.message = state.reason, state.message
    _conditions(state, status)
    if host_ip:
        status.hostIP = host_ip
        status.hostIPs.add(ip=host_ip)
    address = host_ip if state.pod.spec.hostNetwork else state.address
    if address and not state.final:
        status.podIP = address
        status.podIPs.add(ip=address)
    if state.started_at:
        status.startTime.CopyFrom(stamp(state.started_at))
    if not state.admitted and state.final:  # refused: it has no containers here
        return status
    for containers, statuses in (
        (state.init, status.initContainerStatuses),
        (state.apps, status.containerStatuses),
    ):
        statuses.extend(_container(state, container) for container in containers)
    return status


def outline(status: pod_pb2.PodStatus) -> Hashable:
    """What people wait for in it: two statuses of one outline differ in details only (addresses, ids, messages, and
    whether there is a sandbox: a moment later a container says so too)."""
    return (
        status.phase,
        status.reason,
        tuple((each.type, each.status, each.reason) for each in status.conditions if each.type != SANDBOX_READY),
        tuple(map(_outline, (*status.initContainerStatuses, *status.containerStatuses))),
    )


def _outline(status: pod_pb2.ContainerStatus) -> Hashable:
    state, last = status.state, status.lastState.terminated
    return (
        status.ready,
        status.started,
        status.restartCount,
        state.waiting.reason,
        state.running.startedAt.SerializeToString(),
        state.terminated.containerID,
        last.containerID,
    )


def phase(state: PodState) -> str:
    """The kubelet's getPhase over the container states."""
    if state.final:
        return state.final
    if not all(_is_past(container) for container in state.init):
        return "Pending"
    if any(not _is_up(container) and container.ended is None and container.last is None for container in state.apps):
        return "Pending"
    return "Running"


def _is_past(container: ContainerState) -> bool:
    return container.done


def _is_up(container: ContainerState) -> bool:
    return container.stage == RUNNING


def _conditions(state: PodState, status: pod_pb2.PodStatus) -> None:
    for type_, value, reason, message in conditions(state):
        condition = status.conditions.add(type=type_, status=value)
        since = state.since.get(type_)
        if since is not None:
            condition.lastTransitionTime.CopyFrom(stamp(since[1]))
        if reason:
            condition.reason = reason
        if message:
            condition.message = message
    scheduled = status.conditions.add(type="PodScheduled", status="True")
    for known in state.pod.status.conditions:
        if known.type == "PodScheduled" and known.status == "True":
            scheduled.CopyFrom(known)
            return
    scheduled.lastTransitionTime.CopyFrom(stamp(state.started_at))


def _container(state: PodState, container: ContainerState) -> pod_pb2.ContainerStatus:
    status = pod_pb2.ContainerStatus(
        name=container.name,
        ready=is_ready(container),
        started=is_started(container),
        restartCount=container.restarts,
        image=container.image_name or container.image,
        imageID=container.image_ref,
    )
    if container.attempt >= 0:
        status.containerID = _container_id(state, container, container.attempt)
    else:
        status.containerID = ""
    _states(state, container, status)
    return status


def _states(state: PodState, container: ContainerState, status: pod_pb2.ContainerStatus) -> None:
    last = container.last
    if container.stage == RUNNING:
        status.state.running.startedAt.CopyFrom(stamp(container.started_at))
    elif container.ended is not None and (not container.reason or _stays(state, container)):
        _terminated(state, container, container.ended, status.state)
    else:
        status.state.waiting.reason = container.reason or _default_reason(state)
        if container.message:
            status.state.waiting.message = container.message + _next_try(container)
        last = container.ended or last
    if last is not None:
        _terminated(state, container, last, status.lastState)


def _next_try(container: ContainerState) -> str:
    """What a back-off follows, and when it is over."""
    words = ""
    if container.reason == "CrashLoopBackOff" and container.ended is not None:
        words = f"; last exit: {container.ended.reason}, exit code {container.ended.code}"
    elif container.reason != "ImagePullBackOff" or container.stage != WAITING:
        return ""
    return f"{words}; next try at {datetime.fromtimestamp(container.retry_at, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _stays(state: PodState, container: ContainerState) -> bool:
    return container.stage == EXITED and bool(state.final or state.stopping in ("deleted", "failed", "completed"))


def _default_reason(state: PodState) -> str:
    return "PodInitializing" if state.init else "ContainerCreating"


def _terminated(state: PodState, container: ContainerState, ended: Ended, target: pod_pb2.ContainerState) -> None:
    terminated = target.terminated
    terminated.exitCode, terminated.reason = ended.code, ended.reason
    if ended.message:
        terminated.message = _share(state, ended.message)
    terminated.startedAt.CopyFrom(stamp(ended.started_at))
    terminated.finishedAt.CopyFrom(stamp(ended.finished_at))
    terminated.containerID = _container_id(state, container, ended.attempt)


def _share(state: PodState, message: str) -> str:
    """A message cut to its share of what the containers of a pod may say together."""
    encoded = message.encode()
    share = _POD_MESSAGES // len([*state.init, *state.apps])
    return message if len(encoded) <= share else encoded[:share].decode(errors="ignore")


def _container_id(state: PodState, container: ContainerState, attempt: int) -> str:
    return f"podplane://{state.uid}_{container.name}_{attempt}"
