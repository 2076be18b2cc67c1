"""Where a pod's start went: when each of its steps began and how long it took. Pure; a part of machine.py.

A step counts once, from its first try to its first success, retries and waits between them included: what a restart
does later is no part of the start. The clock that was set meanwhile counts neither way. Of a start whose steps nobody
noted, or whose notes are lost, nothing is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nodeagent.pods import effects as do
from nodeagent.pods import events as did
from nodeagent.pods.conditions import is_ready
from nodeagent.pods.hooks import POST_START
from nodeagent.pods.state import RUNNING, PodState
from podplane.v1.pod_pb2 import PodStartStep

_PROBES = "probes"
_BEGIN: dict[type[do.Effect], str] = {
    do.TakeAddress: "sandbox",
    do.CreateSandbox: "sandbox",
    do.PrepareVolumes: "volumes",
    do.PullImage: "pull",
    do.CreateContainer: "create",
    do.StartContainer: "start",
    do.RunHook: POST_START,
}
_END: dict[type[did.Event], str] = {
    did.SandboxReady: "sandbox",
    did.VolumesReady: "volumes",
    did.ImageReady: "pull",
    did.ContainerCreated: "create",
    did.ContainerStarted: "start",
    did.HookEnded: POST_START,
}


def observe(state: PodState, event: did.Event, issued: Iterable[do.Effect]) -> None:
    """Note which steps ended with the event, and which begin with what it calls for."""
    if isinstance(event, did.AgentRestarted):
        _take_over(state, event)
    if state.start_unseen:
        return
    now = _moment(state, event.at)
    if (step := _END.get(type(event))) and _is_of_start(event):
        _end(state, _key(step, event), now)
    if isinstance(event, did.ContainerStarted | did.HookEnded | did.ProbePassed):
        _observe_probes(state, event.container, now)
    for effect in issued:
        if (step := _BEGIN.get(type(effect))) and _is_of_start(effect):
            state.steps.setdefault(_key(step, effect), [now])


def _take_over(state: PodState, event: did.AgentRestarted) -> None:
    """End what the agent before began and did not live to see the end of, as the instances that it left show."""
    state.start_unseen = state.start_unseen or (state.admitted and not state.steps)
    for container in state.containers:
        found = event.instances.get((container.name, container.attempt))
        if found is None or event.rebooted or state.start_unseen:
            continue
        at = _moment(state, found.started_at or event.at)
        for step in ("pull", "create") if found.state == "created" else ("pull", "create", "start"):
            _end(state, f"{step} {container.name}", at)
        _observe_probes(state, container.name, at)


def _moment(state: PodState, at: float) -> int:
    """Microseconds of the start."""
    return max(0, round((at - state.skew - state.started_at) * 1_000_000))


def steps(state: PodState) -> Iterator[PodStartStep]:
    """As the status shows them, in the order in which they began."""
    for key, (after, *took) in state.steps.items():
        step, _, container = key.partition(" ")
        shown = PodStartStep(step=step, afterMicroseconds=after)
        if container:
            shown.container = container
        if took:
            shown.tookMicroseconds = took[0]
        yield shown


def _observe_probes(state: PodState, name: str, now: int) -> None:
    """From the container's running to its being ready, where probes decide that."""
    container, key = state.container(name), f"{_PROBES} {name}"
    if container.stage == RUNNING and (container.waits_for_startup or container.waits_for_readiness):
        state.steps.setdefault(key, [now])
        if is_ready(container):
            _end(state, key, now)


def _key(step: str, thing: object) -> str:
    return f"{step} {getattr(thing, 'container', '')}".rstrip()


def _is_of_start(thing: object) -> bool:
    return getattr(thing, "hook", POST_START) == POST_START


def _end(state: PodState, key: str, now: int) -> None:
    known = state.steps.get(key, [])
    if len(known) == 1:
        known.append(max(0, now - known[0]))
