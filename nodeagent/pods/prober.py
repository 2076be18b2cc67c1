"""When which probe is made: one heap of times for all probes of the node, and one task that follows it.

    worker ─ follow(state) ─► heap of (time, probe) ─► probing.py, so many at once ─► ProbePassed | ProbeFailed

Owns the times and the runs of equal results. A result that changes nothing is told to nobody. Never decides what
becomes of a container. A probe that is late because others are in the way waits: its own timeout begins with its turn.
Fails only by a bug, which ends the agent.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nodeagent.pods import events as did
from nodeagent.pods import probes
from nodeagent.pods.clock import Clock
from nodeagent.pods.probing import Failed, Probing
from nodeagent.pods.requests import spec_of
from nodeagent.pods.state import PodState
from nodeagent.runtime.containers import ContainerRuntime
from nodeagent.runtime.inotify import Inotify
from nodeagent.streaming import child
from podplane.metrics import Counter
from podplane.v1.container_pb2 import Probe

COMMANDS = 8
"""Commands at once: each costs a runtime process."""
DIALS = 64

Post = Callable[[did.Event], None]


@dataclass(slots=True)
class _Track:
    """One probe of one instance. `verdict`: what was told last; None: nothing yet."""

    key: probes.Key
    state: PodState
    post: Post
    run: probes.Run
    verdict: bool | None = None


class Prober:
    """The probes of a node. `follow` after every step of a pod; `run` until cancelled."""

    def __init__(self, runtime: ContainerRuntime, clock: Clock, host_ip: str, marks: Path, results: Counter) -> None:
        self._runtime, self._clock, self._host_ip, self._marks = runtime, clock, host_ip, marks
        self._results = results
        self._pods: dict[str, dict[probes.Key, _Track]] = {}
        self._heap: list[tuple[float, int, _Track]] = []
        self._count = itertools.count()
        self._wake = asyncio.Event()
        self._commands, self._dials = asyncio.Semaphore(COMMANDS), asyncio.Semaphore(DIALS)
        self._events: Inotify | None = None

    def follow(self, state: PodState, post: Post) -> None:
        """Probe what is to be probed of this pod from now on, and nothing else of it."""
        wanted = probes.wanted(state)
        known = self._pods.get(state.uid, {})
        if wanted.keys() == known.keys():
            return
        tracks = {key: known.get(key) or self._begin(key, probe, state, post) for key, probe in wanted.items()}
        if tracks:
            self._pods[state.uid] = tracks
        else:
            del self._pods[state.uid]

    def forget(self, uid: str) -> None:
        """The pod has no worker any more."""
        self._pods.pop(uid, None)

    async def run(self) -> None:
        """Make what is due. Raises what no probe expected."""
        child.sweep(self._marks)
        self._events = Inotify()
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    for track in self._due():
                        group.create_task(self._attempt(track), name=f"probe {track.state.uid[:8]} {track.key[2]}")
                    await self._until_due()
        finally:
            self._events.close()

    def _begin(self, key: probes.Key, probe: Probe, state: PodState, post: Post) -> _Track:
        track = _Track(key, state, post, probes.Run(probe))
        started_at = state.container(key[0]).started_at
        self._push(track, probes.first_in(probe, started_at, self._clock.now()))
        return track

    def _push(self, track: _Track, seconds: float) -> None:
        at = asyncio.get_running_loop().time() + seconds
        heapq.heappush(self._heap, (at, next(self._count), track))
        self._wake.set()

    def _due(self) -> list[_Track]:
        now, found = asyncio.get_running_loop().time(), []
        while self._heap and self._heap[0][0] <= now:
            track = heapq.heappop(self._heap)[2]
            if self._is_followed(track):
                found.append(track)
        return found

    async def _until_due(self) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout_at(self._heap[0][0] if self._heap else None):
                await self._wake.wait()
        except TimeoutError:
            return

    def _is_followed(self, track: _Track) -> bool:
        return self._pods.get(track.state.uid, {}).get(track.key) is track

    async def _attempt(self, track: _Track) -> None:
        began = asyncio.get_running_loop().time()
        probe, failure = track.run.probe, ""
        async with self._commands if probe.HasField("exec") else self._dials:
            if not self._is_followed(track):
                return
            try:
                await self._probing(track).probe(probe)
            except Failed as error:
                failure = str(error)
                failed = True
            else:
                failed = False
        if not self._is_followed(track):  # it has ended or restarted meanwhile
            return
        self._judge(track, not failed, failure)
        took = asyncio.get_running_loop().time() - began
        self._push(track, max(probes.period(probe) - took, 0.0))

    def _judge(self, track: _Track, passed: bool, message: str) -> None:
        (container, attempt, kind), now = track.key, self._clock.now()
        verdict = track.run.judge(passed)
        self._results.add(kind, "successful" if passed else "failed")  # the kubelet's words
        if not passed:
            words = f"{kind.capitalize()} probe failed: {message}"
            track.post(did.ProbeFailed(now, container, attempt, kind, words, verdict is False))
        elif verdict and track.verdict is not True and kind != probes.LIVENESS:
            track.post(did.ProbePassed(now, container, attempt, kind))
        track.verdict = track.verdict if verdict is None else verdict

    def _probing(self, track: _Track) -> Probing:
        state, (name, attempt, _) = track.state, track.key
        id_ = f"{state.uid}_{name}_{attempt}"
        assert self._events is not None
        return Probing(
            state.address or self._host_ip,
            spec_of(state, name),
            self._marks,
            self._events,
            lambda pid_file, argv: self._runtime.exec_command(id_, argv, pid_file),
        )
