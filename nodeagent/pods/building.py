"""What a pod that shall run needs next: sandbox, volumes, init containers, apps, restarts. Pure; a part of machine.py.

Overlap where it is legal: sandbox, volumes and the first images are made at the same time; containers are created and
started one after the other. An ended instance is removed before the next one of its name is created, so that there
are never two.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.pods import backoff, hooks
from nodeagent.pods.conditions import is_started
from nodeagent.pods.containers import restart_wanted, tell
from nodeagent.pods.effects import (
    CreateContainer,
    CreateSandbox,
    Effect,
    PrepareVolumes,
    PullImage,
    RemoveContainer,
    RemoveSandbox,
    StartContainer,
    TakeAddress,
    Tell,
)
from nodeagent.pods.state import (
    ABSENT,
    CREATED,
    CREATING,
    EXITED,
    MAKING,
    POST_START,
    PULLED,
    PULLING,
    READY,
    REMOVING,
    RUNNING,
    STARTING,
    UP,
    WAITING,
    ContainerState,
    PodState,
)
from nodeagent.pods.stopping import stop_instance, stop_times

DEADLINE_MESSAGE = "Pod was active on the node longer than the specified deadline"


def advance(state: PodState, now: float) -> list[Effect]:
    """Every effect that is due and not in flight, for a pod that shall run."""
    effects = _sandbox(state, now) + _volumes(state, now)
    current = _current(state)
    for container in current:
        effects += _container(state, container, now)
    for container in state.containers:
        if container not in current and container.remains and now >= container.seen_at + backoff.KEPT:
            effects += remove_remains(container, now)
    return effects


def _current(state: PodState) -> list[ContainerState]:
    """The first init container that is not done, or the apps; and the sidecars before it, which run along."""
    current: list[ContainerState] = []
    for container in state.init:
        if not container.done:
            return [*current, container]
        if container.sidecar:
            current.append(container)
    return [*current, *state.apps]


def _sandbox(state: PodState, now: float) -> list[Effect]:
    sandbox = state.sandbox
    if sandbox.stage == REMOVING and 0.0 < sandbox.retry_at <= now:
        sandbox.retry_at = 0.0
        return [RemoveSandbox(sandbox.attempt)]
    if sandbox.stage != ABSENT or sandbox.retry_at > now:
        return []
    sandbox.stage = MAKING
    if not state.address and not state.pod.spec.hostNetwork:
        return [TakeAddress()]
    return [CreateSandbox(sandbox.attempt, state.address)]


def _volumes(state: PodState, now: float) -> list[Effect]:
    volumes = state.volumes
    if volumes.stage != ABSENT or volumes.retry_at > now:
        return []
    if not state.pod.spec.volumes:
        volumes.stage = READY
        return []
    volumes.stage, volumes.attempt = MAKING, volumes.attempt + 1
    return [PrepareVolumes()]


def _container(state: PodState, container: ContainerState, now: float) -> list[Effect]:
    effects: list[Effect] = []
    if container.stage == EXITED:
        effects += _after_exit(state, container, now)
    if container.stage == WAITING:
        effects += _while_waiting(container, now)
    if container.stage == PULLED and _may_create(state, container):
        container.stage, container.remains = CREATING, True
        container.attempt += 1
        effects.append(CreateContainer(container.name, container.attempt, container.image_id))
    elif container.stage == CREATED:
        container.stage = STARTING
        effects.append(StartContainer(container.name, container.attempt))
    elif container.stage in UP and container.ending:
        container.kill_at = container.kill_at or now + state.grace
        effects += stop_instance(container, now, container.kill_at)
    elif container.stage == POST_START:
        effects += hooks.begin(container, hooks.POST_START, now)
    return effects


def _while_waiting(container: ContainerState, now: float) -> list[Effect]:
    if container.remains:
        return remove_remains(container, now)
    if container.retry_at <= now:
        container.stage = PULLING
        return [PullImage(container.name, container.image)]
    if _shows_failed_pull(container) and now >= container.seen_at + backoff.SHOW:
        words = f'Back-off pulling image "{container.image}"'
        container.message = f"{words}: {container.reason}: {container.message}"
        container.reason = "ImagePullBackOff"
        return [
            tell(container, "Normal", "BackOff", words),
            tell(container, "Warning", "Failed", "Error: ImagePullBackOff"),
        ]
    return []


def _shows_failed_pull(container: ContainerState) -> bool:
    return container.reason in ("ErrImagePull", "RegistryUnavailable")


def _may_create(state: PodState, container: ContainerState) -> bool:
    ready = state.sandbox.stage == READY and state.volumes.stage == READY
    if not ready or container.remains:
        return False
    if container.init:
        return True
    before = state.apps[: state.apps.index(container)]
    return all(_had_its_turn(other) for other in before)


def _had_its_turn(container: ContainerState) -> bool:
    """Started with its postStart hook past, ended, or failed this time: the ones after it need not wait."""
    if container.stage == POST_START:
        return bool(container.doom)
    return container.stage in (RUNNING, EXITED) or (container.stage == WAITING and bool(container.reason))


def _after_exit(state: PodState, container: ContainerState, now: float) -> list[Effect]:
    effects = remove_remains(container, now)
    if not restart_wanted(state, container):
        return effects
    if now >= container.retry_at:
        if not container.remains:
            container.stage = WAITING
        return effects
    if container.reason != "CrashLoopBackOff" and now >= container.seen_at + backoff.SHOW:
        wait = backoff.restart_delay(container.crashes - 1)
        container.reason = "CrashLoopBackOff"
        container.message = f"back-off {_duration(wait)} restarting failed container={container.name} pod={state.title}"
        words = f"Back-off restarting failed container {container.name} in pod {state.title}"
        effects.append(tell(container, "Warning", "BackOff", words))
    return effects


def _duration(seconds: float) -> str:
    """As Go prints a duration: 10s, 1m20s, 5m0s."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def remove_remains(container: ContainerState, now: float) -> list[Effect]:
    """Remove what an instance that is not live left, unless that is under way."""
    if not container.remains or container.removing or container.live or container.clean_at > now:
        return []
    container.removing = True
    return [RemoveContainer(container.name, container.attempt)]


def check_deadline(state: PodState, now: float) -> None:
    """activeDeadlineSeconds: past it the pod is stopped and fails."""
    due = _deadline(state)
    if due is None or now < due or state.final or state.stopping in ("deleted", "failed", "completed"):
        return
    state.stopping, state.kill_at = "failed", now + state.grace
    state.reason, state.message = "DeadlineExceeded", DEADLINE_MESSAGE


def _deadline(state: PodState) -> float | None:
    spec = state.pod.spec
    if not spec.HasField("activeDeadlineSeconds") or not state.admitted:
        return None
    return state.started_at + state.skew + spec.activeDeadlineSeconds


def settle(state: PodState, now: float) -> None:
    """Make the phase final where all containers are done, or an init container failed for good.

    Sidecars do not keep a pod from completing: they are stopped first.
    """
    for container in state.sidecars:
        container.done = container.done or is_started(container)
    if state.final or state.stopping in ("deleted", "failed"):
        return
    final = outcome(state)
    if final and any(container.live for container in state.sidecars):
        if state.stopping != "completed":
            state.stopping, state.kill_at = "completed", now + state.grace
    else:
        state.final = final


def outcome(state: PodState) -> str:
    """The final phase of a pod that has come to its end; empty while it has not."""
    if any(_has_failed(state, container) for container in state.init):
        return "Failed"
    if not state.initialized or not all(c.stage == EXITED and not restart_wanted(state, c) for c in state.apps):
        return ""
    succeeded = all(c.ended is not None and c.ended.code == 0 for c in state.apps)
    return "Succeeded" if succeeded else "Failed"


def _has_failed(state: PodState, container: ContainerState) -> bool:
    """Whether an init container has failed for good."""
    return container.stage == EXITED and not container.done and not restart_wanted(state, container)


def sandbox_lost(state: PodState, now: float) -> list[Effect]:
    """Stop what still runs in it, then start anew in a new one (unless the pod is ending anyway)."""
    if state.final or state.stopping or state.sandbox.stage != READY:
        return []
    state.stopping, state.kill_at = "sandbox", now + state.grace
    return [Tell("Normal", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")]


def times(state: PodState) -> Iterator[float]:
    """When something of a pod that shall run becomes due."""
    deadline = _deadline(state)
    if deadline is not None:
        yield deadline
    if state.sandbox.stage in (ABSENT, REMOVING):
        yield state.sandbox.retry_at
    if state.volumes.stage == ABSENT:
        yield state.volumes.retry_at
    for container in state.containers:
        yield from _container_times(state, container)


def _container_times(state: PodState, container: ContainerState) -> Iterator[float]:
    yield container.clean_at
    if container.done and container.remains:
        yield container.seen_at + backoff.KEPT
    if container.stage == WAITING or (container.stage == EXITED and restart_wanted(state, container)):
        yield container.retry_at
        yield container.seen_at + backoff.SHOW
    elif container.stage in UP and container.ending:
        yield from stop_times(container, container.kill_at)
