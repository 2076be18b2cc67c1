"""Events that people read: what the scheduler and the controllers did and why, written in the background.

Recording never blocks and never fails: events are advice, not state. When more than fit are waiting, new ones are
dropped and counted in the log. A repeated event raises `count` and `lastTimestamp` of the one that is there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from controlplane.objects import Objects
from podplane.errors import NotFound, PodplaneError
from podplane.kinds import EVENT, Object
from podplane.times import stamp
from podplane.v1 import event_pb2

log = logging.getLogger(__name__)

WAITING, REMEMBERED, IN_FLIGHT = 20_000, 4096, 64


@dataclass(frozen=True, slots=True)
class About:
    """The object that an event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, obj: Object) -> About:
        meta = obj.metadata
        return cls(obj.apiVersion, obj.kind, meta.namespace, meta.name, meta.uid)


@dataclass(frozen=True, slots=True)
class _Note:
    about: About
    type: str
    reason: str
    message: str


class Recorder:
    """`record` from anywhere on the loop; `run` writes. `component` is the event's source."""

    def __init__(self, objects: Objects, component: str, clock: Callable[[], float] = time.time) -> None:
        self._objects = objects
        self._component = component
        self._clock = clock
        self._waiting: deque[tuple[_Note, float]] = deque()
        self._arrived = asyncio.Event()
        self._written: OrderedDict[_Note, str] = OrderedDict()
        self._sequence = 0
        self._dropped = 0

    def record(self, about: About, type: str, reason: str, message: str) -> None:
        """Write it soon. type is Normal or Warning."""
        if len(self._waiting) >= WAITING:
            self._dropped += 1
            return
        self._waiting.append((_Note(about, type, reason, message[:1024]), self._clock()))
        self._arrived.set()

    async def run(self) -> None:
        """Write what was recorded, for ever."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                await self.flush()

    async def flush(self) -> None:
        """Write what waits now."""
        count = min(len(self._waiting), IN_FLIGHT)
        notes: dict[_Note, list[float]] = {}
        for _ in range(count):
            note, at = self._waiting.popleft()
            notes.setdefault(note, []).append(at)
        await asyncio.gather(*(self._write(note, times) for note, times in notes.items()))
        if self._dropped and not self._waiting:
            log.warning(
                "%s: %d events were dropped: they came faster than they can be written", self._component, self._dropped
            )
            self._dropped = 0

    async def _write(self, note: _Note, times: list[float]) -> None:
        try:
            if not await self._repeat(note, times):
                await self._create(note, times)
        except PodplaneError as error:
            log.debug("event %s for %s %s is not written: %s", note.reason, note.about.kind, note.about.name, error)

    async def _repeat(self, note: _Note, times: list[float]) -> bool:
        name = self._written.get(note)
        if name is None:
            return False

        def again(event: event_pb2.Event) -> bool:
            event.count = (event.count or 1) + len(times)
            event.lastTimestamp.CopyFrom(stamp(times[-1]))
            return True

        try:
            await self._objects.mutate(EVENT, _namespace(note.about), name, again)
        except NotFound:  # it has expired meanwhile
            del self._written[note]
            return False
        return True

    async def _create(self, note: _Note, times: list[float]) -> None:
        self._sequence += 1
        about = note.about
        name = f"{about.name[:200]}.{int(times[0] * 1e9) + self._sequence:x}"
        event = event_pb2.Event(
            apiVersion="v1",
            kind="Event",
            type=note.type,
            reason=note.reason,
            message=note.message,
            count=len(times),
            reportingComponent=self._component,
        )
        event.metadata.name, event.metadata.namespace = name, _namespace(about)
        event.source.component = self._component
        target = event.involvedObject
        target.apiVersion, target.kind, target.name, target.uid = about.api_version, about.kind, about.name, about.uid
        if about.namespace:
            target.namespace = about.namespace
        event.firstTimestamp.CopyFrom(stamp(times[0]))
        event.lastTimestamp.CopyFrom(stamp(times[-1]))
        await self._objects.create(event)
        self._written[note] = name
        while len(self._written) > REMEMBERED:
            self._written.popitem(last=False)


def _namespace(about: About) -> str:
    return about.namespace or "default"
