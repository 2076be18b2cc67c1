"""What a step of the wall clock does to a pod. Pure; a part of machine.py.

What is still to come moves along with the clock, so that it comes after as long as before; what has been (start times,
ends, conditions) stays what the clock showed then.
"""

from __future__ import annotations

from nodeagent.pods.effects import Effect
from nodeagent.pods.events import ClockStepped
from nodeagent.pods.state import PodState

_CONTAINER = (
    "retry_at", "seen_at", "hook_at", "stop_at", "spared_until", "term_at", "kill_at", "killed_at", "clean_at",
)  # fmt: skip


def clock_stepped(state: PodState, event: ClockStepped) -> list[Effect]:
    """Move every timer of the pod."""
    state.offset += event.by
    state.skew += event.by
    for name in ("kill_at", "held_until"):
        _move(state, name, event.by)
    for part in (state.sandbox, state.volumes):
        _move(part, "retry_at", event.by)
    for container in state.containers:
        for name in _CONTAINER:
            _move(container, name, event.by)
    return []


def _move(thing: object, name: str, by: float) -> None:
    at = getattr(thing, name)
    if at:  # 0: not set
        setattr(thing, name, at + by)
