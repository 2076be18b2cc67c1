"""The state machine of one pod: `step(state, event) -> effects`. Pure: no clock, no I/O.

    admitted ─► address ─► sandbox ┐
             └► volumes            ├─► init 1 ─► ... ─► init n ─► apps, started in order ─► Succeeded | Failed
             └► images ────────────┘
    deleted, at any moment ─► containers stopped, removed ─► volumes ─► sandbox ─► address ─► gone

Owns: which effect is due. A handler per event changes the state (here and in containers.py); then `advance` issues
whatever the state now calls for and nothing is in flight for (building.py, winding.py). So nothing depends on the
order in which results come, and after a crash the same state gives the same effects again.
Never: does an effect, reads a clock, decides how a status looks (status.py).
Fails: an event that nothing in flight explains raises IllegalStep with the pod's history. Late ones (a timer, a pull
that was cancelled, an exit told twice) are ignored on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nodeagent.pods import backoff, building, conditions, containers, events, hooks, startup, winding
from nodeagent.pods.effects import CancelPull, Effect, Tell
from nodeagent.pods.restarted import agent_restarted
from nodeagent.pods.state import ABSENT, MAKING, PULLED, PULLING, READY, REMOVING, UP, WAITING, PodState
from nodeagent.pods.stepping import clock_stepped


class IllegalStep(Exception):
    """An event that cannot happen in this state: a bug. The message carries what led here."""

    def __init__(self, state: PodState, event: events.Event, why: str) -> None:
        lines = "\n  ".join(state.history)
        super().__init__(f"cannot step pod {state.title}: {why}: {event!r}; history:\n  {lines}")


def step(state: PodState, event: events.Event) -> list[Effect]:
    """Take one event in: change the state, return what is to be done now, in order."""
    try:
        effects = _HANDLERS[type(event)](state, event)
    except containers.Unexpected as error:
        raise IllegalStep(state, event, str(error)) from None
    effects += _advance(state, event.at)
    conditions.observe(state, event.at)
    startup.observe(state, event, effects)
    state.history.append(f"{event.at:.3f} {_brief(event)} -> {', '.join(map(_brief, effects)) or 'nothing'}")
    return effects


def wake_at(state: PodState, now: float) -> float | None:
    """When TimePassed is due next; None where only other events can move the pod."""
    if state.gone:
        return None
    times = list(winding.times(state) if winding.is_winding(state) else building.times(state))
    return min((time for time in times if time > now), default=None)


def _brief(thing: object) -> str:
    if isinstance(thing, Tell):
        return f"Tell {thing.reason}"
    parts = [getattr(thing, name) for name in ("container", "attempt", "reason", "code") if hasattr(thing, name)]
    return " ".join([type(thing).__name__, *map(str, parts)])


def _advance(state: PodState, now: float) -> list[Effect]:
    if state.gone or not (state.admitted or state.final or state.deleted):
        return []
    building.check_deadline(state, now)
    building.settle(state, now)
    effects: list[Effect] = []
    if winding.is_winding(state):
        effects += winding.advance(state, now)
    if not winding.is_winding(state) and not state.gone:
        effects += building.advance(state, now)
    return effects


def _admitted(state: PodState, event: events.PodAdmitted) -> list[Effect]:
    if not state.admitted:
        state.admitted = True
        state.started_at = state.started_at or event.at
        state.address = state.address or event.address
    return []


def _refused(state: PodState, event: events.PodRefused) -> list[Effect]:
    state.started_at = state.started_at or event.at
    state.final, state.reason, state.message = "Failed", event.reason, event.message
    return [Tell("Warning", event.reason, event.message)]


def _spec_changed(state: PodState, event: events.SpecChanged) -> list[Effect]:
    state.pod = event.pod
    effects: list[Effect] = []
    for spec in (*event.pod.spec.initContainers, *event.pod.spec.containers):
        container = state.container(spec.name)
        if container.image == spec.image:
            continue
        container.image = spec.image
        if container.stage in UP:
            container.respec = True
            effects.append(_killing(container.name, container.init))
        elif container.stage in (PULLING, PULLED, WAITING):
            if container.stage == PULLING:
                effects.append(CancelPull(container.name))
            container.stage, container.retry_at, container.pull_failures = WAITING, event.at, 0
            container.image_ref = container.image_name = ""
    return effects


def _killing(name: str, init: bool) -> Tell:
    return Tell("Normal", "Killing", f"Container {name} definition changed, will be restarted", name, init)


def _deletion(state: PodState, event: events.DeletionRequested) -> list[Effect]:
    kill_at = event.at + max(event.grace, 0.0)
    if not (state.deleted or state.withdrawn):
        state.held_until = event.at + min(event.hold, max(event.grace, 0.0) / 2)
    stopping = state.stopping in ("deleted", "failed", "completed")
    state.kill_at = min(state.kill_at, kill_at) if stopping else kill_at
    state.stopping = state.stopping if state.stopping == "failed" else "deleted"
    state.deleted = True
    return []


def _withdrawn(state: PodState, _event: events.PodWithdrawn) -> list[Effect]:
    state.withdrawn, state.held_until = True, 0.0
    return []


def _evicted(state: PodState, event: events.PodEvicted) -> list[Effect]:
    if state.final or state.stopping in ("deleted", "failed", "completed"):
        return []
    state.stopping, state.kill_at = "failed", event.at + event.grace
    state.reason, state.message = conditions.EVICTED, event.message
    return [Tell("Warning", conditions.EVICTED, event.message)]


def _nothing(_state: PodState, _event: events.TimePassed) -> list[Effect]:
    return []


def _objects_changed(state: PodState, event: events.ObjectsChanged) -> list[Effect]:
    if state.volumes.stage == ABSENT:
        state.volumes.retry_at = event.at
    for container in state.containers:
        if container.stage == WAITING and container.reason == "CreateContainerConfigError":
            container.retry_at = event.at
    return []


def _address_taken(state: PodState, event: events.AddressTaken) -> list[Effect]:
    if state.sandbox.stage != MAKING or state.address:
        raise containers.Unexpected("no address was asked for")
    state.address, state.sandbox.stage = event.address, ABSENT
    return []


def _sandbox_ready(state: PodState, event: events.SandboxReady) -> list[Effect]:
    if state.sandbox.stage != MAKING or event.attempt != state.sandbox.attempt:
        raise containers.Unexpected("this sandbox was not being made")
    state.sandbox.stage, state.sandbox.failures = READY, 0
    return []


def _sandbox_failed(state: PodState, event: events.SandboxFailed) -> list[Effect]:
    if state.sandbox.stage != MAKING:
        raise containers.Unexpected("no sandbox was being made")
    sandbox = state.sandbox
    sandbox.failures += 1
    sandbox.message = event.message
    # The half-made one goes first; REMOVING that is due is issued by advance.
    sandbox.stage, sandbox.retry_at = REMOVING, event.at
    return [Tell("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {event.message}")]


def _sandbox_removed(state: PodState, event: events.SandboxRemoved) -> list[Effect]:
    sandbox = state.sandbox
    if sandbox.stage != REMOVING or event.attempt != sandbox.attempt:
        raise containers.Unexpected("this sandbox was not being removed")
    sandbox.stage, sandbox.attempt = ABSENT, sandbox.attempt + 1
    wait = backoff.doubling(sandbox.failures, 1.0, backoff.SANDBOX_CAP) if sandbox.failures else 0.0
    sandbox.retry_at = event.at + wait
    return []


def _sandbox_lost(state: PodState, event: events.SandboxLost) -> list[Effect]:
    return building.sandbox_lost(state, event.at) if event.attempt == state.sandbox.attempt else []


def _volumes_ready(state: PodState, _event: events.VolumesReady) -> list[Effect]:
    if state.volumes.stage != MAKING:
        raise containers.Unexpected("no volumes were being prepared")
    state.volumes.stage, state.volumes.failures = READY, 0
    return []


def _volumes_failed(state: PodState, event: events.VolumesFailed) -> list[Effect]:
    if state.volumes.stage != MAKING:
        raise containers.Unexpected("no volumes were being prepared")
    volumes = state.volumes
    volumes.stage, volumes.failures = ABSENT, volumes.failures + 1
    volumes.retry_at = event.at + backoff.doubling(volumes.failures, 1.0, backoff.MOUNT_CAP)
    return [Tell("Warning", event.reason, event.message)]


def _volumes_removed(state: PodState, _event: events.VolumesRemoved) -> list[Effect]:
    if state.volumes.stage != REMOVING:
        raise containers.Unexpected("no volumes were being removed")
    state.volumes.stage, state.volumes.attempt = ABSENT, 0
    return []


def _cleanup_failed(state: PodState, event: events.CleanupFailed) -> list[Effect]:
    if event.container:
        container = state.container(event.container)
        container.removing, container.clean_at = False, event.at + 1.0
        return []
    part = state.sandbox if event.part == "sandbox" else state.volumes
    if part.stage != REMOVING:
        raise containers.Unexpected(f"{event.part} was not being removed")
    part.retry_at = event.at + 1.0
    return []


_HANDLERS: dict[type[events.Event], Callable[[PodState, Any], list[Effect]]] = {
    events.PodAdmitted: _admitted,
    events.PodRefused: _refused,
    events.SpecChanged: _spec_changed,
    events.DeletionRequested: _deletion,
    events.PodWithdrawn: _withdrawn,
    events.PodEvicted: _evicted,
    events.TimePassed: _nothing,
    events.ClockStepped: clock_stepped,
    events.ObjectsChanged: _objects_changed,
    events.AddressTaken: _address_taken,
    events.SandboxReady: _sandbox_ready,
    events.SandboxFailed: _sandbox_failed,
    events.SandboxRemoved: _sandbox_removed,
    events.SandboxLost: _sandbox_lost,
    events.VolumesReady: _volumes_ready,
    events.VolumesFailed: _volumes_failed,
    events.VolumesRemoved: _volumes_removed,
    events.ImagePulling: containers.image_pulling,
    events.ImageReady: containers.image_ready,
    events.ImageFailed: containers.image_failed,
    events.ContainerCreated: containers.created,
    events.ContainerRefused: containers.refused,
    events.ContainerStarted: containers.started,
    events.ContainerStartFailed: containers.start_failed,
    events.HookEnded: hooks.hook_ended,
    events.ContainerExited: containers.exited,
    events.ProbePassed: containers.probe_passed,
    events.ProbeFailed: containers.probe_failed,
    events.ContainerRemoved: containers.removed,
    events.CleanupFailed: _cleanup_failed,
    events.AgentRestarted: agent_restarted,
}
