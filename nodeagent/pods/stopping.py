"""How one running instance is stopped. Pure; a part of machine.py.

    told (Killing) ─► preStop, to its end ─► its turn, out of the nodes' service rules ─► SIGTERM ─► SIGKILL
                      └────────────── all within one grace, which ends at kill_at ───────────────┘

Whatever SIGTERM waits for, it waits at most until the grace is over; after a preStop or a turn that took all of it, it
still has a moment. The service rules have until `held_until`, and preStop runs meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.pods import backoff, hooks
from nodeagent.pods.containers import tell
from nodeagent.pods.effects import CancelHook, Effect, KillContainer, SignalContainer
from nodeagent.pods.state import ContainerState

HOLD = 5.0
"""Seconds for which a deleted pod waits at most for the nodes' word that their service rules lead to it no more."""
LEAST = 2.0
"""Seconds between SIGTERM and SIGKILL where the grace went into what came before SIGTERM, as the kubelet's."""


def stop_instance(
    container: ContainerState, now: float, kill_at: float, held_until: float = 0.0, *, in_turn: bool = True
) -> list[Effect]:
    """What is due of stopping an instance whose grace ends at `kill_at`; SIGTERM not before `held_until`.

    Not `in_turn`: others are to end before it.
    """
    effects = _begin(container, now)
    if not container.term_at:
        effects += _before(container, now, kill_at)
        if now < kill_at and (_runs_hook(container) or not in_turn):
            container.held = True
            return effects
        if now < min(held_until, kill_at):
            return effects
        effects += _term(container, now, kill_at)
    if now >= max(kill_at, container.spared_until) and now >= container.killed_at + backoff.KILL_AGAIN:
        container.killed_at = now
        effects.append(KillContainer(container.name, container.attempt))
    return effects


def stop_times(container: ContainerState, kill_at: float, held_until: float = 0.0) -> Iterator[float]:
    """When something of it becomes due."""
    yield held_until
    yield max(kill_at, container.spared_until) if container.term_at else kill_at
    yield container.killed_at + backoff.KILL_AGAIN


def _begin(container: ContainerState, now: float) -> list[Effect]:
    if container.stop_at:
        return []
    container.stop_at = now
    words = container.doom or f"Stopping container {container.name}"
    return [*hooks.cancel(container, hooks.POST_START), tell(container, "Normal", "Killing", words)]


def _before(container: ContainerState, now: float, kill_at: float) -> list[Effect]:
    """preStop, unless there is no time for it; one that is not over when the grace is has failed."""
    if not container.pre_stop or container.pre_stopped:
        return []
    if now < kill_at:
        return hooks.begin(container, hooks.PRE_STOP, now)
    container.pre_stopped = True
    if not container.hook:
        return []
    container.hook = ""
    words = "PreStopHook failed: it was not over when the grace period was"
    return [CancelHook(container.name), tell(container, "Warning", "FailedPreStopHook", words)]


def _runs_hook(container: ContainerState) -> bool:
    return container.pre_stop and not container.pre_stopped


def _term(container: ContainerState, now: float, kill_at: float) -> list[Effect]:
    container.term_at = now
    if container.held:
        container.spared_until = now + LEAST
    if now >= max(kill_at, container.spared_until):  # no time is left for it
        return []
    return [SignalContainer(container.name, container.attempt)]
