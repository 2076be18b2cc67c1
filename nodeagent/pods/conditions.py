"""A pod's conditions as the kubelet computes them, and when each last changed. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.pods.state import READY, RUNNING, ContainerState, PodState

NOT_INITIALIZED = "ContainersNotInitialized"
NOT_READY = "ContainersNotReady"
SANDBOX_READY = "PodReadyToStartContainers"
EVICTED = "Evicted"
"""A pod's reason after the node needed what it used."""


def observe(state: PodState, now: float) -> None:
    """Note the time of every condition whose status changed."""
    for type_, status, _, _ in conditions(state):
        known = state.since.get(type_)
        if known is None or known[0] != status:
            state.since[type_] = (status, now)


def conditions(state: PodState) -> Iterator[tuple[str, str, str, str]]:
    """(type, status, reason, message), in the kubelet's order. PodScheduled is the scheduler's and not here."""
    up = state.sandbox.stage == READY and not state.final
    yield SANDBOX_READY, _word(up), "", ""
    yield ("Initialized", *_initialized(state))
    not_ready = [container.name for container in (*state.sidecars, *state.apps) if not is_ready(container)]
    yield ("Ready", *_ready(state, not_ready))
    yield ("ContainersReady", *_ready(state, not_ready))
    if state.reason == EVICTED:
        yield "DisruptionTarget", "True", "TerminationByKubelet", state.message


def is_ready(container: ContainerState) -> bool:
    """Running and started, and its readiness probe passed last; for a plain init container, having succeeded."""
    if container.init and not container.sidecar:
        return container.done
    return is_started(container) and (container.ready or not container.waits_for_readiness)


def is_started(container: ContainerState) -> bool:
    """Running, and its startup probe has passed."""
    return container.stage == RUNNING and (container.startup_passed or not container.waits_for_startup)


def _is_past(container: ContainerState) -> bool:
    return is_started(container) if container.sidecar else container.done


def _word(value: bool) -> str:
    return "True" if value else "False"


def _initialized(state: PodState) -> tuple[str, str, str]:
    if state.final == "Succeeded":
        return "True", "PodCompleted", ""
    missing = [container.name for container in state.init if not _is_past(container)]
    if not missing or state.initialized:  # a sidecar that restarts later on takes nothing back
        return "True", "", ""
    return "False", NOT_INITIALIZED, f"containers with incomplete status: [{' '.join(missing)}]"


def _ready(state: PodState, not_ready: list[str]) -> tuple[str, str, str]:
    if state.final == "Succeeded":
        return "False", "PodCompleted", ""
    if state.final == "Failed":
        return "False", "PodFailed", ""
    if not not_ready:
        return "True", "", ""
    return "False", NOT_READY, f"containers with unready status: [{' '.join(not_ready)}]"
