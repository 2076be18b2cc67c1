"""The hooks of a container: when one is run, and what its end means. Pure; a part of machine.py. hooking.py runs them.

    started ─► postStart ─► running            failed: killed, and started again by policy (PostStartHookError)
    stopped ─► preStop ─► SIGTERM              failed: told, and SIGTERM follows all the same

A hook is delivered at least once, as Kubernetes promises: one that was under way when the agent died is run again.
"""

from __future__ import annotations

from nodeagent.pods.containers import find, show_running, tell
from nodeagent.pods.effects import CancelHook, Effect, RunHook
from nodeagent.pods.events import HookEnded
from nodeagent.pods.state import ContainerState, PodState

POST_START = "postStart"
PRE_STOP = "preStop"
ERROR = "PostStartHookError"
DOOM = "FailedPostStartHook"


def begin(container: ContainerState, hook: str, now: float) -> list[Effect]:
    """Run a hook, unless it is under way. One that an earlier agent began goes on counting from then."""
    if container.hook == hook:
        return []
    container.hook, container.hook_at = hook, container.hook_at or now
    return [RunHook(container.name, container.attempt, hook, container.hook_at)]


def cancel(container: ContainerState, hook: str) -> list[Effect]:
    """End a hook that is under way."""
    container.hook_at = 0.0
    if container.hook != hook:
        return []
    container.hook = ""
    return [CancelHook(container.name)]


def hook_ended(state: PodState, event: HookEnded) -> list[Effect]:
    container = find(state, event.container)
    if container.attempt != event.attempt or container.hook != event.hook:  # cancelled, or of an older instance
        return []
    container.hook, container.hook_at = "", 0.0
    if event.hook == PRE_STOP:
        container.pre_stopped = True
        words = f"PreStopHook failed: {event.failure}"
        return [tell(container, "Warning", "FailedPreStopHook", words)] if event.failure else []
    if not event.failure:
        show_running(container)
        return []
    container.reason, container.message = ERROR, event.message
    container.doom, container.kill_at = DOOM, event.at + state.grace
    return [tell(container, "Warning", "FailedPostStartHook", f"PostStartHook failed: {event.failure}")]
