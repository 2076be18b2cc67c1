"""How much CPU and memory the node, its pods and their containers use: measured when asked, at no cost in between.

CPU is a rate, so it takes two readings. The one of the last call is the first of the next, where it is from 1 s to 60 s
old and knows every container; else a call takes both itself, a second apart. Memory is the working set at the second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from nodeagent.pods import requests
from nodeagent.pods.state import RUNNING, PodState
from nodeagent.pressure.signals import memory_use
from nodeagent.runtime.cgroups import Cgroups
from nodeagent.runtime.usage import Sample, node_cpu, sample
from nodeagent.streaming.call import Outgoing
from podplane.v1.session_pb2 import AgentStreamFrame, ControlStreamFrame, UsageReport

WINDOW = 1.0
OLDEST = 60.0

Key = tuple[str, str, int]
"""Pod uid, container, attempt."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything at one moment, on the monotonic clock."""

    at: float
    node_cpu: int
    node_memory: int
    containers: dict[Key, Sample]


class Meter:
    """Of one node. `states`: its pods."""

    def __init__(self, cgroups: Cgroups, root: str, states: Callable[[], Iterable[PodState]]) -> None:
        self._cgroups, self._root, self._states = cgroups, root, states
        self._last: Reading | None = None
        self._turn = asyncio.Lock()

    async def report(self) -> UsageReport:
        """What is used now. Callers at the same time wait for each other and share the readings."""
        async with self._turn:
            first, second = self._last, await self._read()
            if first is None or not WINDOW <= second.at - first.at <= OLDEST or not _knows(first, second):
                first = second
                await asyncio.sleep(WINDOW)
                second = await self._read()
            self._last = second
            return report(first, second, time.time())

    async def _read(self) -> Reading:
        paths = {
            (state.uid, container.name, container.attempt): requests.cgroup(
                self._root, state, container.name, container.attempt
            )
            for state in self._states()
            for container in state.containers
            if container.stage == RUNNING
        }
        return await asyncio.to_thread(self._read_all, paths)

    def _read_all(self, paths: dict[Key, str]) -> Reading:
        found = {key: sample(self._cgroups, path) for key, path in paths.items()}
        samples = {key: each for key, each in found.items() if each is not None}
        return Reading(time.monotonic(), node_cpu(), memory_use()[0], samples)


def _knows(first: Reading, second: Reading) -> bool:
    return second.containers.keys() <= first.containers.keys()


def report(first: Reading, second: Reading, now: float) -> UsageReport:
    """The rates between two readings; what has begun between them is left out."""
    seconds = max(second.at - first.at, 1e-3)
    made = UsageReport(timestamp=Timestamp(seconds=int(now)), windowSeconds=seconds)
    made.node.cpuNanoCores = _rate(first.node_cpu, second.node_cpu, seconds)
    made.node.memoryBytes = second.node_memory
    pods = {uid: made.pods.add(uid=uid) for uid in sorted({uid for uid, _, _ in second.containers})}
    for key, later in second.containers.items():
        earlier = first.containers.get(key)
        if earlier is not None:
            cpu = _rate(earlier.cpu, later.cpu, seconds)
            pods[key[0]].containers.add(name=key[1], cpuNanoCores=cpu, memoryBytes=later.memory)
    return made


def _rate(before: int, after: int, seconds: float) -> int:
    return max(0, int((after - before) / seconds))


class Usage:
    """The work of a stream that is asked what the node uses."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def received(self, frame: ControlStreamFrame) -> None:
        """The caller has nothing to say."""

    async def run(self, out: Outgoing) -> None:
        await out.send(AgentStreamFrame(usage=await self._meter.report()))
