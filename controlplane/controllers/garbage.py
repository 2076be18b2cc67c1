"""Garbage: what belongs to something that is gone, what is over, and what nobody can end.

Owners: an object whose owners are all gone is deleted; the finalizers foregroundDeletion and orphan of an owner in
deletion are worked off first. Sweeps: events older than an hour, finished pods over a number, pods of deleted nodes.
An owner of a kind that is not stored here is taken to exist.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from controlplane.controllers.facts import disown, is_finished, is_terminating, key_of
from controlplane.controllers.loop import Source, control
from controlplane.controllers.queue import WorkQueue
from controlplane.objects import FOREGROUND, ORPHAN, Objects
from controlplane.store.stored import Event
from podplane.errors import Conflict, NotFound, PodplaneError
from podplane.kinds import EVENT, KINDS, NODE, POD, Kind, Object
from podplane.v1 import event_pb2, meta_pb2, pod_pb2

log = logging.getLogger(__name__)

EVENTS_KEPT = 3600.0
FINISHED_PODS_KEPT = 12_500
NODE_GONE_FOR = 40.0
SWEEP_EVERY = 20.0

_Key = tuple[str, str, str]
"""kind, namespace, name."""


async def run(objects: Objects, queue: WorkQueue[_Key], clock: Callable[[], float] = time.time) -> None:
    """Collect garbage, for ever."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_Owners(objects).run(queue), name="garbage: owners")
        group.create_task(_sweep_for_ever(Sweeper(objects), clock), name="garbage: sweeps")


class _Owners:
    """Deletes dependents after, or before, their owners."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._dependents: defaultdict[str, set[_Key]] = defaultdict(set)

    async def run(self, queue: WorkQueue[_Key]) -> None:
        sources = [Source(kind, self._keys) for kind in KINDS.values() if kind is not EVENT]
        await control("garbage", self._objects, queue, self.reconcile, sources=sources, everything=self._everything)

    def _everything(self) -> Iterable[_Key]:
        for kind in KINDS.values():
            if kind is EVENT:
                continue
            for obj in self._objects.list(kind):
                key = (kind.name, *key_of(obj))
                if self._note(key, obj) or obj.metadata.finalizers:
                    yield key

    def _note(self, key: _Key, obj: Object) -> bool:
        for owner in obj.metadata.ownerReferences:
            self._dependents[owner.uid].add(key)
        return bool(obj.metadata.ownerReferences)

    def _keys(self, event: Event) -> Iterable[_Key]:
        obj, previous = event.stored.obj, event.previous
        key: _Key = (event.stored.kind.name, *key_of(obj))
        if event.type == "DELETED":
            return self._gone(key, obj)
        if previous is not None and _is_as_before(previous.obj.metadata, obj.metadata):
            return ()
        noted = self._note(key, obj)
        if noted and previous is not None and is_terminating(obj) != is_terminating(previous.obj):
            return [key, *self._owners(obj)]
        return [key] if noted or (is_terminating(obj) and obj.metadata.finalizers) else ()

    def _gone(self, key: _Key, obj: Object) -> list[_Key]:
        """Those it owned may be garbage now; those who own it may have waited for its end."""
        for owner in obj.metadata.ownerReferences:
            self._dependents[owner.uid].discard(key)
            if not self._dependents[owner.uid]:
                del self._dependents[owner.uid]
        return [*self._dependents.get(obj.metadata.uid, ()), *self._owners(obj)]

    def _owners(self, obj: Object) -> list[_Key]:
        return [
            (owner.kind, obj.metadata.namespace if KINDS[owner.kind].namespaced else "", owner.name)
            for owner in obj.metadata.ownerReferences
            if owner.kind in KINDS
        ]

    async def reconcile(self, key: _Key) -> float | None:
        """One object: as a dependent, then as an owner in deletion."""
        kind, obj = KINDS[key[0]], self._read(key)
        if obj is None:
            return None
        if obj.metadata.ownerReferences and not is_terminating(obj):
            await self._judge(kind, obj)
        if is_terminating(obj) and ORPHAN in obj.metadata.finalizers:
            await self._release_dependents(obj)
            await self._drop_finalizer(kind, obj, ORPHAN)
        elif is_terminating(obj) and FOREGROUND in obj.metadata.finalizers and not await self._delete_dependents(obj):
            await self._drop_finalizer(kind, obj, FOREGROUND)
        return None

    def _read(self, key: _Key) -> Any | None:
        stored = self._objects.cache.get(KINDS[key[0]], key[1], key[2])
        return stored.obj if stored is not None else None

    async def _judge(self, kind: Kind, obj: Object) -> None:
        references = obj.metadata.ownerReferences
        gone = [each for each in references if not self._exists(each, obj.metadata.namespace)]
        if not gone:
            return
        if len(gone) == len(references):
            await self._objects.delete(kind, *key_of(obj), uid=obj.metadata.uid)
            return
        uids = {each.uid for each in gone}

        def change(live: Any) -> bool:
            return sum(disown(live.metadata, uid) for uid in uids) > 0  # each of them: no short cut

        await self._objects.mutate(kind, *key_of(obj), change, uid=obj.metadata.uid)

    def _exists(self, owner: meta_pb2.OwnerReference, namespace: str) -> bool:
        kind = KINDS.get(owner.kind)
        if kind is None:
            return True
        found = self._read((kind.name, namespace if kind.namespaced else "", owner.name))
        return found is not None and bool(found.metadata.uid == owner.uid)

    def _of(self, owner: Object) -> list[tuple[Kind, Any]]:
        """The dependents that there are."""
        uid = owner.metadata.uid
        found = [(KINDS[key[0]], self._read(key)) for key in sorted(self._dependents.get(uid, ()))]
        return [
            (kind, obj)
            for kind, obj in found
            if obj is not None and any(each.uid == uid for each in obj.metadata.ownerReferences)
        ]

    async def _release_dependents(self, owner: Object) -> None:
        uid = owner.metadata.uid
        for kind, obj in self._of(owner):
            await self._objects.mutate(kind, *key_of(obj), lambda o: disown(o.metadata, uid), uid=obj.metadata.uid)

    async def _delete_dependents(self, owner: Object) -> int:
        """Delete them in the foreground too; the result is how many block the owner's end."""
        uid = owner.metadata.uid
        for kind, obj in self._of(owner):
            if not is_terminating(obj):
                propagation = "Foreground" if self._dependents.get(obj.metadata.uid) else "Background"
                await self._objects.delete(kind, *key_of(obj), uid=obj.metadata.uid, propagation=propagation)
        return sum(
            any(each.uid == uid and each.blockOwnerDeletion for each in obj.metadata.ownerReferences)
            for _, obj in self._of(owner)
        )

    async def _drop_finalizer(self, kind: Kind, obj: Object, finalizer: str) -> None:
        def change(live: Any) -> bool:
            if finalizer not in live.metadata.finalizers:
                return False
            live.metadata.finalizers.remove(finalizer)
            return True

        await self._objects.mutate(kind, *key_of(obj), change, uid=obj.metadata.uid)


def _is_as_before(before: meta_pb2.ObjectMeta, after: meta_pb2.ObjectMeta) -> bool:
    return (
        before.ownerReferences == after.ownerReferences
        and before.finalizers == after.finalizers
        and before.HasField("deletionTimestamp") == after.HasField("deletionTimestamp")
    )


async def _sweep_for_ever(sweeper: Sweeper, clock: Callable[[], float]) -> None:
    while True:
        try:
            await sweeper.sweep(clock(), asyncio.get_running_loop().time())
        except PodplaneError as error:
            log.warning("cannot sweep, trying again in %.0f s: %s", SWEEP_EVERY, error)
        await asyncio.sleep(SWEEP_EVERY)


class Sweeper:
    """Looks at everything now and then."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._missing: dict[str, float] = {}

    async def sweep(self, wall: float, now: float) -> None:
        """Delete what is over. `wall` is the time of day, `now` a time that never jumps."""
        pods: list[pod_pb2.Pod] = self._objects.list(POD)
        doomed: list[tuple[Kind, Any, int | None]] = [
            *((EVENT, each, None) for each in expired_events(self._objects.list(EVENT), wall)),
            *((POD, each, 0) for each in surplus_finished(pods, FINISHED_PODS_KEPT)),
            *((POD, each, 0) for each in self._homeless(pods, now)),
        ]
        results = await self._objects.transact(
            self._objects.delete(kind, *key_of(obj), uid=obj.metadata.uid, grace=grace) for kind, obj, grace in doomed
        )
        for result in results:
            if isinstance(result, PodplaneError) and not isinstance(result, NotFound | Conflict):
                raise result

    def _homeless(self, pods: Iterable[pod_pb2.Pod], now: float) -> list[pod_pb2.Pod]:
        """Pods of nodes that have been gone for a while: nobody will report their end."""
        nodes = {node.metadata.name for node in self._objects.list(NODE)}
        stray = [pod for pod in pods if pod.spec.nodeName and pod.spec.nodeName not in nodes]
        self._missing = {pod.spec.nodeName: self._missing.get(pod.spec.nodeName, now) for pod in stray}
        return [pod for pod in stray if now - self._missing[pod.spec.nodeName] >= NODE_GONE_FOR]


def expired_events(events: Iterable[event_pb2.Event], wall: float) -> list[event_pb2.Event]:
    """Events that were last seen an hour ago."""
    return [each for each in events if _last_seen(each) + EVENTS_KEPT < wall]


def _last_seen(event: event_pb2.Event) -> int:
    times = (event.lastTimestamp, event.eventTime, event.metadata.creationTimestamp)
    return next((each.seconds for each in times if each.seconds), 0)


def surplus_finished(pods: Iterable[pod_pb2.Pod], kept: int) -> list[pod_pb2.Pod]:
    """The oldest of the finished pods that nobody is deleting, but for the newest `kept`."""
    finished = [pod for pod in pods if is_finished(pod) and not is_terminating(pod)]
    finished.sort(key=lambda pod: (pod.metadata.creationTimestamp.seconds, pod.metadata.name))
    return finished[: max(0, len(finished) - kept)]
