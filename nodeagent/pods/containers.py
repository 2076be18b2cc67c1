"""What each event does to one container of a pod. Pure; a part of machine.py.

    waiting ─► pulling ─► pulled ─► creating ─► created ─► starting ─► running ─► exited ─► (removed) ─► waiting ...
                                                                   └─► post-start ─┘

An exit is recorded once per instance: whoever tells it a second time is ignored.
"""

from __future__ import annotations

from nodeagent.pods import backoff, probes
from nodeagent.pods.effects import CancelHook, Effect, Tell
from nodeagent.pods.events import (
    ContainerCreated,
    ContainerExited,
    ContainerRefused,
    ContainerRemoved,
    ContainerStarted,
    ContainerStartFailed,
    ImageFailed,
    ImagePulling,
    ImageReady,
    ProbeFailed,
    ProbePassed,
)
from nodeagent.pods.state import (
    CREATED,
    CREATING,
    EXITED,
    POST_START,
    PULLED,
    PULLING,
    RUNNING,
    STARTING,
    UP,
    WAITING,
    ContainerState,
    Ended,
    PodState,
)

_STAYING = ("CrashLoopBackOff", "RunContainerError", "PostStartHookError")
"""What is shown until the next instance runs: why the last one does not."""

UNKNOWN_EXIT = "The container could not be located: its exit code is not known"


class Unexpected(Exception):
    """Nothing in flight explains the event."""


def restart_wanted(state: PodState, container: ContainerState) -> bool:
    """Whether the policy starts an ended container again. Init containers that succeed are done; sidecars never are."""
    if container.ended is None or state.final or (container.done and not container.sidecar):
        return False
    if container.respec:
        return True
    if container.sidecar:
        return True
    # What a probe ended is started again even where it ended with 0.
    failed = container.ended.code != 0 or bool(container.doom)
    if container.init:
        return failed and state.restart_policy != "Never"
    return state.restart_policy == "Always" or (failed and state.restart_policy == "OnFailure")


def tell(container: ContainerState, kind: str, reason: str, message: str) -> Tell:
    """An event about a container."""
    return Tell(kind, reason, message, container.name, container.init)


def find(state: PodState, name: str) -> ContainerState:
    """The container of that name. Raises Unexpected."""
    try:
        return state.container(name)
    except KeyError:
        raise Unexpected(f"the pod has no container {name}") from None


def image_pulling(state: PodState, event: ImagePulling) -> list[Effect]:
    """Shown in place of the failure that this try may mend; not where the container has run: its last end says more."""
    container = find(state, event.container)
    if container.stage == PULLING and container.ended is None:
        container.reason, container.message = "", event.message
    return []


def image_ready(state: PodState, event: ImageReady) -> list[Effect]:
    container = find(state, event.container)
    if container.stage != PULLING:  # cancelled
        return []
    container.stage, container.pull_failures = PULLED, 0
    container.image_id, container.image_ref, container.image_name = event.id, event.digest, event.name
    if container.reason not in _STAYING:
        container.reason = container.message = ""
    return [tell(container, "Normal", "Pulled", event.words)]


def image_failed(state: PodState, event: ImageFailed) -> list[Effect]:
    container = find(state, event.container)
    if container.stage != PULLING:  # cancelled
        return []
    container.stage, container.reason, container.message = WAITING, event.reason, event.message
    container.pull_failures += 1
    container.seen_at = event.at
    pulls = event.reason in ("ErrImagePull", "RegistryUnavailable")
    wait = backoff.doubling(container.pull_failures) if pulls else backoff.RETRY_CREATE
    container.retry_at = event.at + wait
    said = event.message.removeprefix(f'failed to pull image "{container.image}": ')
    words = f'Failed to pull image "{container.image}": {said}' if pulls else event.message
    return [tell(container, "Warning", "Failed", words), tell(container, "Warning", "Failed", f"Error: {event.reason}")]


def created(state: PodState, event: ContainerCreated) -> list[Effect]:
    container = find(state, event.container)
    if container.stage != CREATING or container.attempt != event.attempt:
        raise Unexpected(f"{event.container} attempt {event.attempt} was not being created")
    container.stage, container.pid = CREATED, event.pid
    return [tell(container, "Normal", "Created", f"Created container {container.name}")]


def refused(state: PodState, event: ContainerRefused) -> list[Effect]:
    container = find(state, event.container)
    if container.stage != CREATING or container.attempt != event.attempt:
        raise Unexpected(f"{event.container} attempt {event.attempt} was not being created")
    if event.reason == "RunContainerError":
        container.stage = STARTING
        return start_failed(state, ContainerStartFailed(event.at, event.container, event.attempt, event.message))
    container.stage, container.reason, container.message = WAITING, event.reason, event.message
    container.retry_at = event.at + backoff.RETRY_CREATE
    return [tell(container, "Warning", "Failed", f"Error: {event.message}")]


def started(state: PodState, event: ContainerStarted) -> list[Effect]:
    container = find(state, event.container)
    if container.attempt == event.attempt and container.stage == EXITED:
        return []
    if container.stage != STARTING or container.attempt != event.attempt:
        raise Unexpected(f"{event.container} attempt {event.attempt} was not being started")
    return mark_started(container, event.at)


def mark_started(container: ContainerState, at: float) -> list[Effect]:
    """The instance's process runs from `at` on. It is shown as running once its postStart hook, if any, is past."""
    container.stage, container.started_at = POST_START, at
    container.respec, container.doom = False, ""
    container.startup_passed = container.ready = False
    container.forget_stop()
    if not container.post_start:
        show_running(container)
    return [tell(container, "Normal", "Started", f"Started container {container.name}")]


def show_running(container: ContainerState) -> None:
    """What was before is past."""
    container.stage = RUNNING
    container.reason = container.message = ""
    if container.ended is not None:
        container.last, container.ended = container.ended, None
    container.restarts = container.exits


def start_failed(state: PodState, event: ContainerStartFailed) -> list[Effect]:
    container = find(state, event.container)
    if container.stage != STARTING or container.attempt != event.attempt:
        raise Unexpected(f"{event.container} attempt {event.attempt} was not being started")
    _end(container, Ended(128, "StartError", event.message, 0.0, event.at, event.attempt), event.at)
    if restart_wanted(state, container):
        container.reason, container.message = "RunContainerError", event.message
    return [tell(container, "Warning", "Failed", f"Error: {event.message}")]


def exited(state: PodState, event: ContainerExited) -> list[Effect]:
    container = find(state, event.container)
    if event.attempt != container.attempt or not container.live:  # told twice, or of an older instance
        return []
    known = event.code is not None
    code = event.code if event.code is not None else 137
    # containerd and CRI-O say OOMKilled of 0 too, where the kernel killed a child: a success that looks a failure.
    reason = "Completed" if code == 0 else "OOMKilled" if event.oom else "Error"
    started = container.started_at if container.stage in UP else event.at
    ended = Ended(
        code=code,
        reason=reason if known else "ContainerStatusUnknown",
        message=event.message if known else (event.message or UNKNOWN_EXIT),
        started_at=started,
        # The end is the exit file's time; the start was taken when the runtime had returned, which may be later.
        finished_at=max(event.finished_at or event.at, started),
        attempt=event.attempt,
    )
    failed_hook = container.message if container.reason == "PostStartHookError" and container.doom else ""
    effects = _end(container, ended, event.at)
    if not container.sidecar:
        container.done = container.init and code == 0 and known and not container.respec
    if failed_hook and restart_wanted(state, container):
        container.reason, container.message = "PostStartHookError", failed_hook
    return effects


def _end(container: ContainerState, ended: Ended, now: float) -> list[Effect]:
    """Record the instance's one terminal record, and when the next one may start."""
    if container.ended is not None:
        container.last = container.ended
    if ended.started_at and ended.finished_at - ended.started_at >= backoff.HEALTHY:
        container.crashes = 0
    container.restarts = container.exits
    container.ended, container.stage, container.pid = ended, EXITED, 0
    container.reason = container.message = ""
    container.exits += 1
    container.seen_at = now
    effects: list[Effect] = [CancelHook(container.name)] if container.hook else []
    container.hook = ""
    if container.respec:
        container.crashes, container.retry_at = 0, now
        container.image_ref = container.image_name = ""
        return effects
    # The end's time is the kernel's: a clock that was set back since must not add to the wait.
    container.retry_at = min(ended.finished_at, now) + backoff.restart_delay(container.crashes)
    container.crashes += 1
    return effects


def probe_passed(state: PodState, event: ProbePassed) -> list[Effect]:
    container = find(state, event.container)
    if event.attempt == container.attempt and container.stage == RUNNING:  # else of an older instance
        if event.probe == probes.STARTUP:
            container.startup_passed = True
        elif event.probe == probes.READINESS:
            container.ready = True
    return []


def probe_failed(state: PodState, event: ProbeFailed) -> list[Effect]:
    """A failing readiness takes the container out; a failing startup or liveness ends the instance."""
    container = find(state, event.container)
    if event.attempt != container.attempt or container.stage != RUNNING:
        return []
    told: list[Effect] = [tell(container, "Warning", "Unhealthy", event.message)]
    if not event.enough:
        return told
    if event.probe == probes.READINESS:
        container.ready = False
    elif not (container.ending or state.stopping or state.deleted or state.final):
        container.doom = probes.doom(state, container.name, event.probe)
        container.kill_at = event.at + probes.grace(state, container.name, event.probe)
    return told


def removed(state: PodState, event: ContainerRemoved) -> list[Effect]:
    container = find(state, event.container)
    if not container.removing or container.attempt != event.attempt:
        raise Unexpected(f"{event.container} attempt {event.attempt} was not being removed")
    container.removing = container.remains = False
    return []
