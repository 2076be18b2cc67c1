"""One agent's session, the outgoing half: a snapshot, then deltas; level-triggered throughout (D5).

Owns what was sent to the agent and what waits to be sent. Where more waits than a bound, all of it is dropped and
a new snapshot says the same. Never blocks the hub that feeds it, and never reads the agent's frames (service.py).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator

from controlplane.nodes import frames
from controlplane.nodes.placement import Placement
from controlplane.nodes.references import Reference, references
from controlplane.store.cache import WatchCache
from controlplane.store.stored import Event, Stored
from podplane.errors import PodplaneError, Unavailable
from podplane.kinds import ENDPOINT_SLICE, KINDS, NODE, SERVICE

QUEUE = 4096
"""Deltas that may wait for a slow agent before a snapshot replaces them."""

BATCH = 256 * 1024
"""Bytes that wait after which a batch is sent: with one object more it is far below what a message may have."""

_FOR_ALL = (NODE, SERVICE, ENDPOINT_SLICE)
"""Kinds of which every node gets every object."""


class Session:
    """What the control plane tells one agent."""

    def __init__(self, node: str, instance: str, cache: WatchCache, placement: Placement, now: float) -> None:
        self.node = node
        self.instance = instance
        self.last_seen = now
        self.acknowledged = 0
        self.kept: set[str] = set()
        """uids of pods that the store does not know and the agent was told to keep."""
        self._cache = cache
        self._placement = placement
        self._control: deque[bytes] = deque()
        self._deltas: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._stale = True
        self._ended: PodplaneError | None = None
        self._floor = 0
        self._last_delta = 0
        self._snapshot_size = 0
        self._verdicts: dict[str, bytes] = {}
        self._pods: dict[str, Stored] = {}
        self._held: dict[Reference, int] = {}

    async def outgoing(self, heartbeat: float, grace: float) -> AsyncIterator[bytes]:
        """Every frame for the agent until the session ends; raises the reason. Times in seconds."""
        loop = asyncio.get_running_loop()
        beat = loop.time() + heartbeat
        while True:
            while (frame := self._next()) is not None:
                yield frame
            if self._ended is not None:
                raise self._ended
            if loop.time() - self.last_seen > grace:
                raise Unavailable(f"no heartbeat from {self.node} for {grace:.0f} s: connect again")
            if loop.time() >= beat:
                beat = loop.time() + heartbeat
                yield frames.heartbeat()
            await self._sleep_until(beat)

    async def _sleep_until(self, when: float) -> None:
        try:
            async with asyncio.timeout_at(when):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    def _next(self) -> bytes | None:
        if self._stale:
            self._stale = False
            self._deltas.extend(self._snapshot())
        if self._control:
            return self._control.popleft()
        if len(self._deltas) < 2:
            return self._deltas.popleft() if self._deltas else None
        return frames.batch(self._waiting())

    def _waiting(self) -> Iterator[bytes]:
        """What waits, up to about BATCH bytes."""
        size = 0
        while self._deltas and size < BATCH:
            frame = self._deltas.popleft()
            size += len(frame)
            yield frame

    def end(self, reason: PodplaneError) -> None:
        """Finish with what is queued and then with this reason."""
        if self._ended is None:
            self._ended = reason
            self._wake.set()

    def control(self, frame: bytes) -> None:
        """Queue a frame that is no state: streams, goodbye."""
        self._control.append(frame)
        self._wake.set()

    def decide(self, uid: str, frame: bytes) -> None:
        """Give a verdict on a pod that the store does not have: told after every snapshot."""
        self._verdicts[uid] = frame

    def forget(self, uid: str) -> None:
        """The pod's last trace is gone from the node."""
        self.kept.discard(uid)
        self._verdicts.pop(uid, None)

    def resync(self) -> None:
        """Drop what waits and send a snapshot instead."""
        self._deltas.clear()
        self._stale = True
        self._wake.set()

    def _delta(self, frame: bytes, revision: int) -> None:
        if self._stale:
            return
        if len(self._deltas) >= QUEUE + self._snapshot_size:
            self.resync()
            return
        self._deltas.append(frame)
        self._last_delta = revision
        self._wake.set()

    def _snapshot(self) -> list[bytes]:
        """All that the node has, in one step of the loop: nothing can happen in between."""
        revision = self._floor = self._last_delta = self._cache.revision
        self._pods = dict(self._placement.pods(self.node))
        self._held = {}
        content = [
            frames.snapshot_begin(),
            *(frames.change("ADDED", stored) for kind in _FOR_ALL for stored in self._cache.list(kind)),
            *self._objects_of(self._pods),
            *(frames.bind(stored) for stored in self._pods.values()),
            frames.snapshot_end(revision),
            *self._verdicts.values(),
        ]
        self._snapshot_size = len(content)
        return content

    def _objects_of(self, uids: Iterable[str]) -> Iterator[bytes]:
        """The config maps and secrets that these pods use and the agent does not have yet."""
        for uid in uids:
            for reference in self._placement.references(uid):
                if reference in self._held:
                    continue
                kind, namespace, name = reference
                stored = self._cache.get(KINDS[kind], namespace, name)
                self._held[reference] = stored.revision if stored else 0
                if stored:
                    yield frames.change("ADDED", stored)

    def pod_changed(self, stored: Stored) -> None:
        """A pod of this node is new or has changed. A change of its status alone is the agent's own report."""
        uid = stored.obj.metadata.uid
        sent = self._pods.get(uid)
        if sent is not None and (stored.revision <= sent.revision or _same_wish(sent.obj, stored.obj)):
            return
        for frame in list(self._objects_of((uid,))):
            self._delta(frame, stored.revision)
        self._pods[uid] = stored
        make = frames.bind if sent is None else frames.update
        self._delta(make(stored, stored.revision), stored.revision)

    def pod_removed(self, stored: Stored) -> None:
        """A pod of this node has no object any more."""
        if self._pods.pop(stored.obj.metadata.uid, None) is None:
            return
        self._delta(frames.unbind(stored, stored.revision), stored.revision)
        for reference in references(stored.obj):
            # From now on its changes do not come here: what the agent has would grow old, and meet the next pod.
            if reference in self._held and not self._placement.uses(self.node, *reference):
                del self._held[reference]
                self._delta(frames.drop(reference, stored.revision), stored.revision)

    def object_changed(self, event: Event) -> None:
        """A service, endpoint slice or node has changed, or a config map or secret that a pod here uses."""
        stored = event.stored
        if stored.kind in _FOR_ALL:
            if stored.revision <= self._floor or (stored.kind is NODE and not _matters(event)):
                return
        else:
            reference = (stored.kind.name, stored.namespace, stored.name)
            if stored.revision <= self._held.get(reference, 0):
                return
            self._held[reference] = stored.revision
        self._delta(frames.change(event.type, stored, stored.revision), stored.revision)

    def settled(self) -> bool:
        """True where the agent has taken in all that there is for it: only then are digests comparable."""
        return not (self._stale or self._deltas) and self.acknowledged >= self._last_delta

    def pods_digest(self) -> str:
        """The digest of the pods that the agent should hold, at the revisions that it was sent."""
        here = self._placement.pods(self.node)
        return digest((uid, self._pods[uid].revision if uid in self._pods else 0) for uid in here)


def digest(lines: Iterable[tuple[str, int]]) -> str:
    """sha256, hex, over the sorted lines `uid resourceVersion`."""
    text = "".join(sorted(f"{uid} {revision}\n" for uid, revision in lines))
    return hashlib.sha256(text.encode()).hexdigest()


def _same_wish(before: object, now: object) -> bool:
    """True where two states of a pod differ in nothing that the agent acts on."""
    return _wish(before) == _wish(now)


def _wish(pod: object) -> tuple[object, ...]:
    metadata = pod.metadata  # type: ignore[attr-defined]
    return (
        pod.spec,  # type: ignore[attr-defined]
        metadata.deletionTimestamp,
        metadata.deletionGracePeriodSeconds,
        dict(metadata.labels),
        dict(metadata.annotations),
    )


def _matters(event: Event) -> bool:
    """True where a node's change concerns other nodes: its pod range, addresses or labels, not its heartbeat."""
    if event.type != "MODIFIED" or event.previous is None:
        return True
    before, now = event.previous.obj, event.stored.obj
    return bool(
        before.spec != now.spec
        or list(before.status.addresses) != list(now.status.addresses)
        or dict(before.metadata.labels) != dict(now.metadata.labels)
    )
