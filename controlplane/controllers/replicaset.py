"""ReplicaSets: as many pods of a template as spec.replicas says.

Owns the pods whose managing owner is the set: it adopts orphans that the selector matches and releases pods that it
no longer matches. It reads pods from the watch cache, in which its own writes are visible as soon as they return, so
it needs no memory of what it has asked for. Creations start slowly (1, 2, 4 ...), so that a namespace that refuses
pods is asked once and not a thousand times.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from controlplane.controllers import replicas
from controlplane.controllers.facts import ObjectKey, controller_of, is_terminating, key_of
from controlplane.controllers.loop import Source, control
from controlplane.controllers.owned import Owned, owners
from controlplane.controllers.queue import WorkQueue
from controlplane.controllers.recorder import About, Recorder
from controlplane.objects import Objects
from controlplane.store.stored import Event
from podplane import selectors
from podplane.errors import Conflict, NotFound, PodplaneError
from podplane.kinds import POD, REPLICA_SET
from podplane.v1 import apps_pb2, pod_pb2


async def run(
    objects: Objects, queue: WorkQueue[ObjectKey], recorder: Recorder, clock: Callable[[], float] = time.time
) -> None:
    """Control all ReplicaSets, for ever."""
    await _Controller(objects, recorder, clock).run(queue)


class _Controller:
    def __init__(self, objects: Objects, recorder: Recorder, clock: Callable[[], float]) -> None:
        self._objects = objects
        self._recorder = recorder
        self._clock = clock
        self._pods = Owned(objects, POD)
        self._sets = Owned(objects, REPLICA_SET)

    async def run(self, queue: WorkQueue[ObjectKey]) -> None:
        sources = [Source(REPLICA_SET, self._set_keys), Source(POD, self._pod_keys)]
        await control("replicasets", self._objects, queue, self.reconcile, sources=sources, everything=self._everything)

    def _everything(self) -> list[ObjectKey]:
        self._pods.load()
        self._sets.load()
        return [key_of(each) for each in self._objects.list(REPLICA_SET)]

    def _set_keys(self, event: Event) -> Iterable[ObjectKey]:
        self._sets.take(event)
        return [key_of(event.stored.obj)]

    def _pod_keys(self, event: Event) -> Iterable[ObjectKey]:
        self._pods.take(event)
        return owners(event, REPLICA_SET, self._matching)

    def _matching(self, pod: pod_pb2.Pod) -> list[ObjectKey]:
        """The sets that may adopt an orphan."""
        sets = self._objects.list(REPLICA_SET, pod.metadata.namespace) if pod.metadata.labels else []
        return [key_of(each) for each in sets if replicas.selects(each, pod)]

    async def reconcile(self, key: ObjectKey) -> float | None:
        """Make one set's pods be as it says."""
        stored = self._objects.cache.get(REPLICA_SET, *key)
        if stored is None:
            return None
        owner: apps_pb2.ReplicaSet = stored.obj
        selector = selectors.from_message(owner.spec.selector)
        pods = await self._claim(owner, selector)
        plan = replicas.plan(owner, pods, self._siblings(owner))
        failure: PodplaneError | None = None
        if not is_terminating(owner):
            failure = await self._create(owner, plan.create) or await self._delete(owner, plan.delete)
        again = await self._report(key, owner.metadata.uid, failure)
        if failure is not None:
            raise failure
        return again

    async def _claim(self, owner: apps_pb2.ReplicaSet, selector: selectors.Selector) -> list[pod_pb2.Pod]:
        """The set's pods, after it has adopted and released what it should."""
        mine: list[pod_pb2.Pod] = []
        for pod in self._pods.of(owner.metadata.uid):
            if selector.matches(pod.metadata.labels) or is_terminating(pod):
                mine.append(pod)
            elif not is_terminating(owner):
                await self._pods.release(pod, owner)
        if is_terminating(owner):
            return mine
        for pod in self._pods.orphans(owner.metadata.namespace):
            if replicas.adopts(owner, selector, pod):
                adopted = await self._pods.adopt(pod, owner)
                mine.extend([adopted] if adopted is not None else [])
        return mine

    def _siblings(self, owner: apps_pb2.ReplicaSet) -> list[pod_pb2.Pod]:
        """The pods of all sets of the same deployment: scaling down prefers nodes that have several of them."""
        deployment = controller_of(owner.metadata)
        sets = self._sets.of(deployment.uid) if deployment is not None else [owner]
        return [pod for each in sets for pod in self._pods.of(each.metadata.uid)]

    async def _create(self, owner: apps_pb2.ReplicaSet, count: int) -> PodplaneError | None:
        batch, left = 1, count
        while left > 0:
            size = min(batch, left)
            failure = await _all(self._create_one(owner) for _ in range(size))
            if failure is not None:
                return failure
            left -= size
            batch *= 2
        return None

    async def _create_one(self, owner: apps_pb2.ReplicaSet) -> None:
        about = About.of(owner)
        try:
            pod: Any = await self._objects.create(replicas.new_pod(owner))
        except PodplaneError as error:
            self._recorder.record(about, "Warning", "FailedCreate", f"Error creating: {error}")
            raise
        self._pods.add(pod)
        self._recorder.record(about, "Normal", "SuccessfulCreate", f"Created pod: {pod.metadata.name}")

    async def _delete(self, owner: apps_pb2.ReplicaSet, pods: Sequence[pod_pb2.Pod]) -> PodplaneError | None:
        return await _all(self._delete_one(owner, pod) for pod in pods)

    async def _delete_one(self, owner: apps_pb2.ReplicaSet, pod: pod_pb2.Pod) -> None:
        about, name = About.of(owner), pod.metadata.name
        try:
            await self._objects.delete(POD, *key_of(pod), uid=pod.metadata.uid)
        except (NotFound, Conflict):
            return  # it went by itself
        except PodplaneError as error:
            self._recorder.record(about, "Warning", "FailedDelete", f"Error deleting: {error}")
            raise
        self._recorder.record(about, "Normal", "SuccessfulDelete", f"Deleted pod: {name}")

    async def _report(self, key: ObjectKey, uid: str, failure: PodplaneError | None) -> float | None:
        """Write the status where it changed; the result is when a pod becomes available."""
        stored = self._objects.cache.get(REPLICA_SET, *key)
        if stored is None or stored.obj.metadata.uid != uid:
            return None
        now = self._clock()
        selector = selectors.from_message(stored.obj.spec.selector)
        pods = [pod for pod in self._pods.of(uid) if selector.matches(pod.metadata.labels)]

        def change(owner: apps_pb2.ReplicaSet) -> bool:
            status = replicas.status(owner, pods, str(failure) if failure else None, now)
            if status == owner.status:
                return False
            owner.status.CopyFrom(status)
            return True

        await self._objects.mutate(REPLICA_SET, *key, change, status=True, uid=uid)
        return replicas.next_available(stored.obj, pods, now)


async def _all(calls: Iterable[Coroutine[Any, Any, None]]) -> PodplaneError | None:
    """Do all of these; the first failure, where there is one. Other exceptions are raised."""
    failures = [each for each in await asyncio.gather(*calls, return_exceptions=True) if each is not None]
    for failure in failures:
        if not isinstance(failure, PodplaneError):
            raise failure
    return next((each for each in failures if isinstance(each, PodplaneError)), None)
