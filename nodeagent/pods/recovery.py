"""Taking over what an earlier agent left: list reality, claim it by journal, finish or undo, then take new work.

Each pod of the journal gets its worker with AgentRestarted as its first event: the machine decides what that means
(restarted.py). What no pod claims is removed: a sandbox, a container, an instance that the journal superseded. A pod
whose journal is lost but whose spec is there is rebuilt from reality; a journal record without a spec cannot be run and
is cleared away (the control plane sends the pod again where it still wants it).
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field

from nodeagent.pods import netfiles
from nodeagent.pods.clock import STEP, Clock
from nodeagent.pods.codec import decode
from nodeagent.pods.events import AgentRestarted, ClockStepped, DeletionRequested, Event, SpecChanged
from nodeagent.pods.journal import Record
from nodeagent.pods.manager import Pods
from nodeagent.pods.state import EXITED, READY, RUNNING, ContainerState, PodState, new_state
from nodeagent.pods.stopping import HOLD
from nodeagent.pods.tools import Tools
from nodeagent.runtime.volumes import VolumeFailure
from nodeagent.sandbox.sandboxes import SandboxFailure
from nodeagent.types import ContainerFound, RuntimeFailure, Sandbox
from podplane.v1.pod_pb2 import Pod

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Reality:
    """What is on the node, by pod uid."""

    sandboxes: dict[str, list[Sandbox]] = field(default_factory=dict)
    half_made: dict[str, list[int]] = field(default_factory=dict)
    containers: dict[str, list[ContainerFound]] = field(default_factory=dict)

    def instances(self, uid: str) -> dict[tuple[str, int], ContainerFound]:
        return {(found.name, found.attempt): found for found in self.containers.get(uid, ())}


def states(specs: Mapping[str, Pod], records: Mapping[str, Record], reality: Reality) -> list[PodState]:
    """The state of every pod that the node works with, before reality is held against it. Pure."""
    found = []
    for uid, pod in specs.items():
        if uid in records:
            found.append(caught_up(decode(records[uid], pod), reality))
        elif uid in reality.containers or uid in reality.sandboxes:
            found.append(rebuilt(pod, reality))
    return found


def rebuilt(pod: Pod, reality: Reality) -> PodState:
    """A pod of which only the spec and what runs is known (its journal was lost). Pure."""
    state = new_state(pod)
    state.admitted = True
    state.volumes.attempt = 1
    for sandbox in reality.sandboxes.get(state.uid, ()):
        state.sandbox.stage, state.sandbox.attempt = READY, sandbox.attempt
        state.address = sandbox.address or ""
    return caught_up(state, reality)


def caught_up(state: PodState, reality: Reality) -> PodState:
    """With the instances that its record does not know of: they were written down, and that was lost. Pure."""
    newer = {}
    for found in reality.containers.get(state.uid, ()):
        container = next((one for one in state.containers if one.name == found.name), None)
        if container is not None and found.attempt > container.attempt:
            _take_over(container, found)
            newer[found.name] = container
    if not newer:
        return state
    for sandbox in reality.sandboxes.get(state.uid, ()):
        if sandbox.attempt >= state.sandbox.attempt:
            state.sandbox.stage, state.sandbox.attempt = READY, sandbox.attempt
            state.address = sandbox.address or ""
    # Init containers run one after the other: what is there says that those before it have succeeded.
    there = [index for index, container in enumerate(state.containers) if container.name in newer]
    for container in state.init[: max(there)]:
        container.done = True
        container.stage = container.stage if container.sidecar else EXITED
    return state


def _take_over(container: ContainerState, found: ContainerFound) -> None:
    lost = found.attempt - max(container.attempt, 0)
    container.stage, container.attempt, container.remains = RUNNING, found.attempt, True
    container.exits, container.restarts = container.exits + lost, container.restarts + lost
    container.started_at = found.started_at
    container.image_id = container.image_ref = found.image
    if container.ended is not None:
        container.last, container.ended = container.ended, None
    container.reason, container.message = "", ""
    container.forget_stop()


async def look(tools: Tools) -> Reality:
    """List what is on the node."""
    reality = Reality()
    for sandbox in await tools.sandboxes.list():
        reality.sandboxes.setdefault(sandbox.pod_uid, []).append(sandbox)
    for uid, attempt in await tools.sandboxes.half_made():
        reality.half_made.setdefault(uid, []).append(attempt)
    for found in await tools.runtime.list():
        reality.containers.setdefault(found.pod_uid, []).append(found)
    return reality


async def recover(tools: Tools, pods: Pods) -> None:
    """Take over every pod; strays are gone when this returns, or reported and tried again at the next start."""
    await asyncio.to_thread(tools.hooking.sweep)
    reality = await look(tools)
    specs = await asyncio.to_thread(pods.kept.read)
    found = states(specs, tools.journal.found(), reality)
    await _sweep(tools, found, reality)
    now, rebooted = tools.clock.now(), tools.journal.rebooted
    for state in found:
        if state.address:
            tools.addresses.claim(state.uid, state.address)
        sandbox = _claimed(state, reality)
        event = AgentRestarted(now, rebooted, sandbox is not None, reality.instances(state.uid))
        pods.adopt(state, [*_stepped(state, tools.clock, rebooted), event, *_untold(state, now)], sandbox)
    known = {state.uid for state in found}
    for uid in specs.keys() - known:  # never begun: the control plane sends it again where it still wants it
        pods.kept.forget(uid)
    for uid in tools.journal.found().keys() - known:
        log.warning("pod %s is in the journal without a spec: what is left of it is removed", uid)
        tools.journal.forget(uid)
    await _sweep_directories(tools, known)
    log.info("recovered %d pods%s", len(found), " after a reboot" if rebooted else "")


def _stepped(state: PodState, clock: Clock, rebooted: bool) -> list[Event]:
    """What the wall clock was set by while no agent ran. Over a reboot nobody can tell that from the time it took."""
    by = 0.0 if rebooted or not state.offset else clock.offset - state.offset
    if abs(by) < STEP:
        state.offset = clock.offset
        return []
    return [ClockStepped(clock.now(), by)]


def _untold(state: PodState, now: float) -> Iterator[Event]:
    """What the kept spec says and the journal does not: the spec is kept first, and the agent may have died between."""
    yield SpecChanged(now, state.pod)
    metadata = state.pod.metadata
    if metadata.HasField("deletionTimestamp") and not state.deleted:
        yield DeletionRequested(now, float(metadata.deletionGracePeriodSeconds), HOLD)


def _claimed(state: PodState, reality: Reality) -> Sandbox | None:
    for sandbox in reality.sandboxes.get(state.uid, ()):
        if sandbox.attempt == state.sandbox.attempt:
            return sandbox
    return None


async def _sweep(tools: Tools, found: Iterable[PodState], reality: Reality) -> None:
    by_uid = {state.uid: state for state in found}
    for uid, instances in reality.containers.items():
        claimed = {(c.name, c.attempt) for c in by_uid[uid].containers} if uid in by_uid else set()
        for instance in instances:
            if (instance.name, instance.attempt) not in claimed:
                await _remove_container(tools, instance.id)
    stray = {uid: [box.attempt for box in boxes] for uid, boxes in reality.sandboxes.items()}
    for table in (stray, reality.half_made):
        for uid, attempts in table.items():
            for attempt in attempts:
                if uid not in by_uid or by_uid[uid].sandbox.attempt != attempt:
                    await _remove_sandbox(tools, uid, attempt)


async def _remove_container(tools: Tools, id_: str) -> None:
    log.warning("container %s belongs to no pod of this node: it is removed", id_)
    try:
        await tools.runtime.remove(id_)
    except RuntimeFailure as failure:
        log.error("cannot remove stray container %s: %s", id_, failure.message)


async def _remove_sandbox(tools: Tools, uid: str, attempt: int) -> None:
    log.warning("sandbox %s_%d belongs to no pod of this node: it is removed", uid, attempt)
    try:
        await tools.sandboxes.remove(uid, attempt)
    except SandboxFailure as failure:
        log.error("cannot remove stray sandbox %s_%d: %s", uid, attempt, failure)


async def _sweep_directories(tools: Tools, known: Set[str]) -> None:
    """Volumes, files and logs of pods that the node knows nothing of any more."""
    paths = tools.paths
    parents = (paths.state / "volumes", *(paths.run / name for name in ("volumes", "nfs", "subpaths", "pods")))
    for uid in {entry.name for parent in parents if parent.is_dir() for entry in parent.iterdir()} - known:
        log.warning("the volumes of pod %s belong to no pod of this node: they are removed", uid)
        try:
            await tools.volumes.remove(uid)
            await asyncio.to_thread(netfiles.remove, paths, uid)
        except (VolumeFailure, OSError) as failure:
            log.error("cannot remove the volumes of stray pod %s: %s", uid, failure)
    if paths.logs.is_dir():
        strays = [path for path in paths.logs.iterdir() if path.name.rpartition("_")[2] not in known]
        for path in strays:
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
