"""What a pod's journaled state means after the agent, or the whole node, was restarted. Pure; a part of machine.py.

Whatever was in flight is held against what was found on the node: done (go on from there), half done (done again under
the same name, or removed and done under a new one) or lost (recorded as ContainerStatusUnknown, never an invented 0).
"""

from __future__ import annotations

from nodeagent.pods import building, containers
from nodeagent.pods.effects import Effect, KillContainer
from nodeagent.pods.events import AgentRestarted, ContainerExited
from nodeagent.pods.state import (
    ABSENT,
    CREATED,
    CREATING,
    MAKING,
    PULLED,
    PULLING,
    READY,
    REMOVING,
    RUNNING,
    UP,
    WAITING,
    ContainerState,
    PodState,
)
from nodeagent.types import ContainerFound

REBOOTED = "The node was restarted while the container ran: its exit code is not known"


def agent_restarted(state: PodState, event: AgentRestarted) -> list[Effect]:
    """Put every part of the pod where reality is."""
    _volumes(state, event)
    effects: list[Effect] = []
    for container in state.containers:
        found = None if event.rebooted else event.instances.get((container.name, container.attempt))
        effects += _container(state, container, found, event)
    return effects + _sandbox(state, event)


def _sandbox(state: PodState, event: AgentRestarted) -> list[Effect]:
    sandbox = state.sandbox
    if sandbox.stage == MAKING:  # made again under the same name finds it done
        sandbox.stage = ABSENT
    elif sandbox.stage == REMOVING:
        sandbox.retry_at = event.at
    elif sandbox.stage == READY and not event.sandbox:
        return building.sandbox_lost(state, event.at)
    return []


def _volumes(state: PodState, event: AgentRestarted) -> None:
    volumes = state.volumes
    if volumes.stage == REMOVING:
        volumes.retry_at = event.at
    elif volumes.stage in (MAKING, READY):  # preparing is idempotent, and tells anew where they are
        volumes.stage = ABSENT
    volumes.attempt = max(volumes.attempt, 1) if not state.final else volumes.attempt


def _container(
    state: PodState, container: ContainerState, found: ContainerFound | None, event: AgentRestarted
) -> list[Effect]:
    container.removing = False
    if container.stage in (PULLING, PULLED):
        container.stage = WAITING
    if not container.live:
        return []
    # A signal may have been written down and not sent, a hook not have come to its end: they are sent and run again.
    container.term_at = container.killed_at = 0.0
    container.hook = ""
    if found is not None and found.exit is not None:
        end = found.exit
        return _exit(state, container, event, end.code, end.oom, end.finished_at, end.message)
    if found is not None and found.conmon_alive and found.state == "created":
        container.stage, container.pid = CREATED, found.pid or 0
        return []
    if found is not None and found.conmon_alive and found.state == "running":
        container.pid = found.pid or 0
        return [] if container.stage in UP else containers.mark_started(container, found.started_at or event.at)
    if container.stage in (CREATING, CREATED) and (found is None or found.state == "created"):
        container.stage = WAITING  # it never ran: what there is of it goes, and a new attempt is made
        return []
    kill: list[Effect] = [KillContainer(container.name, container.attempt)] if found is not None else []
    return kill + _exit(state, container, event, None, False, event.at, REBOOTED if event.rebooted else "")


def _exit(
    state: PodState,
    container: ContainerState,
    event: AgentRestarted,
    code: int | None,
    oom: bool,
    finished_at: float,
    message: str,
) -> list[Effect]:
    if container.stage not in UP:
        container.stage, container.started_at = RUNNING, finished_at
    told = ContainerExited(event.at, container.name, container.attempt, code, oom, finished_at, message)
    return containers.exited(state, told)
