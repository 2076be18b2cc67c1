"""How a pod is stopped and cleared away. Pure; a part of machine.py.

Every container is stopped (stopping.py) within the grace; then, with nothing alive and nothing in
flight: containers removed, volumes, sandbox, address, and for a deleted pod the report that it is gone. The same path
clears away a pod whose phase is final, and (up to the sandbox) one whose sandbox was lost; of a pod that completes only
the sidecars are left to be stopped. Safe where nothing was ever set up.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.pods.building import outcome
from nodeagent.pods.containers import restart_wanted
from nodeagent.pods.effects import (
    CancelPull,
    Effect,
    ReleaseAddress,
    RemoveContainer,
    RemoveSandbox,
    RemoveVolumes,
    ReportGone,
)
from nodeagent.pods.state import (
    ABSENT,
    CREATED,
    EXITED,
    MAKING,
    PULLED,
    PULLING,
    READY,
    REMOVING,
    UP,
    WAITING,
    ContainerState,
    PodState,
)
from nodeagent.pods.stopping import stop_instance, stop_times


def is_winding(state: PodState) -> bool:
    """Whether the pod is being stopped or cleared away."""
    return bool(state.stopping or state.final or state.deleted)


def advance(state: PodState, now: float) -> list[Effect]:
    """Every effect that is due and not in flight, for a pod that is being stopped."""
    effects: list[Effect] = []
    for container in state.containers:
        effects += _stop(state, container, now)
    if any(container.live for container in state.containers):
        return effects
    _conclude(state)
    effects += _remove_containers(state, now)
    if any(container.remains for container in state.containers):
        return effects
    if state.stopping == "sandbox" and not state.final:
        return effects + _start_anew(state, now)
    return effects + _clear(state, now)


def _stop(state: PodState, container: ContainerState, now: float) -> list[Effect]:
    if container.stage in UP:
        in_turn = _is_its_turn(state, container)
        return stop_instance(container, now, _kill_at(state, container), state.held_until, in_turn=in_turn)
    if container.stage == PULLING:
        container.stage = WAITING
        return [CancelPull(container.name)]
    if container.stage in (PULLED, CREATED):  # a created one never ran: it is only removed
        container.stage = WAITING
    return []


def _is_its_turn(state: PodState, container: ContainerState) -> bool:
    """A sidecar outlives everything that was started after it: sidecars end last, and in reverse."""
    if not container.sidecar:
        return True
    after = state.init[state.init.index(container) + 1 :]
    return not any(other.live for other in (*after, *state.apps))


def _kill_at(state: PodState, container: ContainerState) -> float:
    """When the grace ends. An instance that was being stopped for its own reasons keeps its earlier end."""
    return min(state.kill_at, container.kill_at) if container.kill_at else state.kill_at


def _conclude(state: PodState) -> None:
    """With nothing alive: fix the phase of a pod that does not come back."""
    if state.final or state.stopping == "sandbox":
        return
    ended = [container.ended for container in state.apps]
    if state.stopping == "failed":
        state.final = "Failed"
    elif state.stopping == "completed":
        state.final = outcome(state)
    elif any(end is not None for end in ended):
        state.final = "Succeeded" if all(end is not None and end.code == 0 for end in ended) else "Failed"


def _remove_containers(state: PodState, now: float) -> list[Effect]:
    effects: list[Effect] = []
    for container in state.containers:
        if container.remains and not container.removing and container.clean_at <= now:
            container.removing = True
            effects.append(RemoveContainer(container.name, container.attempt))
    return effects


def _start_anew(state: PodState, now: float) -> list[Effect]:
    effects = _remove_sandbox(state, now)
    if state.sandbox.stage != ABSENT:
        return effects
    state.stopping, state.kill_at = "", 0.0
    for container in state.init:
        container.done = False
        _reset(container)
    for container in state.apps:
        if container.stage == EXITED and not restart_wanted(state, container):
            continue
        _reset(container)
    return effects


def _reset(container: ContainerState) -> None:
    if container.ended is not None:
        container.last, container.ended = container.ended, None
    container.stage, container.reason, container.message = WAITING, "", ""
    container.forget_stop()


def _clear(state: PodState, now: float) -> list[Effect]:
    effects = _remove_volumes(state, now)
    if state.volumes.stage != ABSENT:
        return effects
    effects += _remove_sandbox(state, now)
    if state.sandbox.stage != ABSENT:
        return effects
    if state.address:
        effects.append(ReleaseAddress(state.address))
        state.address = ""
    if state.deleted:
        state.gone = True
        effects.append(ReportGone())
    return effects


def _remove_volumes(state: PodState, now: float) -> list[Effect]:
    volumes = state.volumes
    if volumes.stage == MAKING:
        return []
    if volumes.stage == READY and not volumes.attempt:  # a pod without any
        volumes.stage = ABSENT
    if volumes.stage == READY or (volumes.stage == ABSENT and volumes.attempt):
        volumes.stage, volumes.retry_at = REMOVING, now
    if volumes.stage == REMOVING and 0.0 < volumes.retry_at <= now:
        volumes.retry_at = 0.0
        return [RemoveVolumes()]
    return []


def _remove_sandbox(state: PodState, now: float) -> list[Effect]:
    sandbox = state.sandbox
    if sandbox.stage == READY:
        sandbox.stage, sandbox.retry_at = REMOVING, now
    if sandbox.stage == REMOVING and 0.0 < sandbox.retry_at <= now:
        sandbox.retry_at = 0.0
        return [RemoveSandbox(sandbox.attempt)]
    return []


def times(state: PodState) -> Iterator[float]:
    """When something of a pod that is being stopped becomes due."""
    for part in (state.sandbox, state.volumes):
        if part.stage == REMOVING:
            yield part.retry_at
    for container in state.containers:
        yield container.clean_at
        if container.stage in UP:
            yield from stop_times(container, _kill_at(state, container), state.held_until)
