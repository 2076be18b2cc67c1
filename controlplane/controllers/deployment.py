"""Deployments: one replica set per pod template, and the way from one template to the next.

Owns the replica sets whose managing owner is the deployment. What to do is decided in rollout.py (sizes),
revisions.py (history) and progress.py (status), all pure; this module reads, asks them, and writes what differs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from controlplane.controllers import progress, revisions, rollout
from controlplane.controllers.facts import (
    ObjectKey,
    controller_of,
    is_finished,
    is_terminating,
    key_of,
)
from controlplane.controllers.loop import Source, control
from controlplane.controllers.owned import Owned, owners
from controlplane.controllers.queue import WorkQueue
from controlplane.controllers.recorder import About, Recorder
from controlplane.objects import Objects
from controlplane.store.stored import Event
from podplane import selectors
from podplane.errors import AlreadyExists
from podplane.kinds import DEPLOYMENT, POD, REPLICA_SET
from podplane.v1 import apps_pb2

ReplicaSets = Sequence[apps_pb2.ReplicaSet]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do to the replica sets: create one with so many replicas, and scale others by name."""

    create: int | None
    scale: dict[str, int]


def plan(deployment: apps_pb2.Deployment, new: apps_pb2.ReplicaSet | None, old: ReplicaSets, *, old_pods: bool) -> Plan:
    """The next step. `old_pods`: a pod of an old set is not gone yet (it holds back Recreate)."""
    limits, rolling = rollout.bounds(deployment), rollout.is_rolling(deployment)
    sizes = [revisions.size_of(each) for each in old]
    size = revisions.size_of(new) if new is not None else None
    before = {each.name: each.replicas for each in (*sizes, *([size] if size else []))}
    create: int | None = None
    if deployment.spec.paused or _is_scaled(limits, (*sizes, *([size] if size else []))):
        rollout.scale(limits, rolling, size, sizes, deployment.status.replicas)
    elif not rolling:
        create = _recreate(limits, size, sizes, old_pods)
    elif size is None:
        create = rollout.new_set_replicas(limits, True, 0, sum(each.replicas for each in sizes))
    else:
        rollout.roll(limits, size, sizes)
    after = {each.name: each.replicas for each in (*sizes, *([size] if size else []))}
    return Plan(create, {name: replicas for name, replicas in after.items() if replicas != before[name]})


def _is_scaled(limits: rollout.Bounds, sizes: Iterable[rollout.Size]) -> bool:
    """spec.replicas changed since a set that has pods was scaled last."""
    return any(each.replicas and each.desired is not None and each.desired != limits.replicas for each in sizes)


def _recreate(
    limits: rollout.Bounds, new: rollout.Size | None, old: Iterable[rollout.Size], old_pods: bool
) -> int | None:
    waiting = old_pods
    for each in old:
        waiting = waiting or each.replicas > 0
        each.replicas = 0
    if waiting:
        return None
    if new is None:
        return limits.replicas
    new.replicas = limits.replicas
    return None


async def run(
    objects: Objects, queue: WorkQueue[ObjectKey], recorder: Recorder, clock: Callable[[], float] = time.time
) -> None:
    """Control all deployments, for ever."""
    await _Controller(objects, recorder, clock).run(queue)


class _Controller:
    def __init__(self, objects: Objects, recorder: Recorder, clock: Callable[[], float]) -> None:
        self._objects = objects
        self._recorder = recorder
        self._clock = clock
        self._sets = Owned(objects, REPLICA_SET)
        self._pods = Owned(objects, POD)

    async def run(self, queue: WorkQueue[ObjectKey]) -> None:
        sources = [
            Source(DEPLOYMENT, lambda event: [key_of(event.stored.obj)]),
            Source(REPLICA_SET, self._set_keys),
            Source(POD, self._pod_keys),
        ]
        await control("deployments", self._objects, queue, self.reconcile, sources=sources, everything=self._everything)

    def _everything(self) -> list[ObjectKey]:
        self._sets.load()
        self._pods.load()
        return [key_of(each) for each in self._objects.list(DEPLOYMENT)]

    def _set_keys(self, event: Event) -> Iterable[ObjectKey]:
        self._sets.take(event)
        return owners(event, DEPLOYMENT, self._matching)

    def _matching(self, each: apps_pb2.ReplicaSet) -> list[ObjectKey]:
        deployments = self._objects.list(DEPLOYMENT, each.metadata.namespace)
        return [key_of(d) for d in deployments if selectors.from_message(d.spec.selector).matches(each.metadata.labels)]

    def _pod_keys(self, event: Event) -> Iterable[ObjectKey]:
        """Only a pod's end matters here: Recreate waits for it. All else reaches us as a replica set's status."""
        self._pods.take(event)
        pod = event.stored.obj
        owner = controller_of(pod.metadata)
        if owner is None or not (event.type == "DELETED" or is_finished(pod)):
            return []
        stored = self._objects.cache.get(REPLICA_SET, pod.metadata.namespace, owner.name)
        deployment = controller_of(stored.obj.metadata) if stored is not None else None
        return [(pod.metadata.namespace, deployment.name)] if deployment is not None else []

    async def reconcile(self, key: ObjectKey) -> float | None:
        """Take one deployment's next step, and say how far it is."""
        stored = self._objects.cache.get(DEPLOYMENT, *key)
        if stored is None:
            return None
        deployment: apps_pb2.Deployment = stored.obj
        sets = await self._claim(deployment)
        new = revisions.newest(deployment, sets)
        old = [each for each in sets if each is not new]
        if not is_terminating(deployment):
            new = await self._step(deployment, new, old)
        return await self._report(deployment)

    async def _step(
        self, deployment: apps_pb2.Deployment, new: apps_pb2.ReplicaSet | None, old: ReplicaSets
    ) -> apps_pb2.ReplicaSet | None:
        number = max((revisions.revision(each) for each in old), default=0) + 1
        if new is not None:
            number = max(number, revisions.revision(new))
        steps = plan(deployment, new, old, old_pods=self._has_pods(old))
        if steps.create is not None:
            new = await self._create(deployment, steps.create, number)
        for name, replicas in steps.scale.items():
            await self._scale(deployment, name, replicas)
        if new is not None:
            await self._annotate(deployment, new, number)
        for each in old:
            # Sets that keep their size still have to know the deployment's, or the step is taken for a scaling.
            if each.spec.replicas and each.metadata.name not in steps.scale:
                await self._scale(deployment, each.metadata.name, each.spec.replicas)
        if progress.is_complete(deployment, deployment.status):
            for each in revisions.expired(deployment, old):
                await self._objects.delete(REPLICA_SET, *key_of(each), uid=each.metadata.uid)
        return new

    async def _claim(self, deployment: apps_pb2.Deployment) -> list[apps_pb2.ReplicaSet]:
        """The deployment's sets, after it has adopted and released what it should."""
        uid, selector = deployment.metadata.uid, selectors.from_message(deployment.spec.selector)
        mine: list[apps_pb2.ReplicaSet] = []
        for each in self._sets.of(uid):
            if selector.matches(each.metadata.labels) or is_terminating(deployment):
                mine.append(each)
            else:
                await self._sets.release(each, deployment)
        if is_terminating(deployment):
            return mine
        for each in self._sets.orphans(deployment.metadata.namespace):
            if selector.matches(each.metadata.labels) and not is_terminating(each):
                adopted = await self._sets.adopt(each, deployment)
                mine.extend([adopted] if adopted is not None else [])
        return mine

    def _has_pods(self, old: ReplicaSets) -> bool:
        return any(not is_finished(pod) for each in old for pod in self._pods.of(each.metadata.uid))

    async def _create(self, deployment: apps_pb2.Deployment, replicas: int, number: int) -> apps_pb2.ReplicaSet | None:
        new = revisions.new_set(deployment, deployment.status.collisionCount, replicas, number)
        try:
            made = await self._objects.create(new)
        except AlreadyExists:
            await self._salt(deployment, new.metadata.name)
            return None
        self._sets.add(made)
        self._say_scaled(deployment, made.metadata.name, 0, replicas)
        return made

    async def _salt(self, deployment: apps_pb2.Deployment, name: str) -> None:
        """The name is taken by a set of another template: the hash gets another salt, and the change a new try."""
        taken = self._objects.cache.get(REPLICA_SET, deployment.metadata.namespace, name)
        if taken is None or revisions.newest(deployment, [taken.obj]) is not None:
            return  # a set of ours that is on its way out: its end is an event

        def change(live: apps_pb2.Deployment) -> bool:
            live.status.collisionCount = deployment.status.collisionCount + 1
            return True

        uid = deployment.metadata.uid
        await self._objects.mutate(DEPLOYMENT, *key_of(deployment), change, status=True, uid=uid)

    async def _scale(self, deployment: apps_pb2.Deployment, name: str, replicas: int) -> None:
        before = 0

        def change(each: apps_pb2.ReplicaSet) -> bool:
            nonlocal before
            before = each.spec.replicas
            return revisions.resize(each, deployment, replicas)

        await self._objects.mutate(REPLICA_SET, deployment.metadata.namespace, name, change)
        if before != replicas:
            self._say_scaled(deployment, name, before, replicas)

    def _say_scaled(self, deployment: apps_pb2.Deployment, name: str, before: int, after: int) -> None:
        direction = "up" if after > before else "down"
        words = f"Scaled {direction} replica set {name} from {before} to {after}"
        if after != before:
            self._recorder.record(About.of(deployment), "Normal", "ScalingReplicaSet", words)

    async def _annotate(self, deployment: apps_pb2.Deployment, new: apps_pb2.ReplicaSet, number: int) -> None:
        def on_set(each: apps_pb2.ReplicaSet) -> bool:
            changed = revisions.annotate(each, deployment, number)
            if each.spec.minReadySeconds != deployment.spec.minReadySeconds:
                each.spec.minReadySeconds = deployment.spec.minReadySeconds
                changed = True
            return changed

        def on_deployment(live: apps_pb2.Deployment) -> bool:
            if revisions.revision(live) == number:
                return False
            live.metadata.annotations[revisions.REVISION] = str(number)
            return True

        await self._objects.mutate(REPLICA_SET, *key_of(new), on_set, uid=new.metadata.uid)
        await self._objects.mutate(DEPLOYMENT, *key_of(deployment), on_deployment, uid=deployment.metadata.uid)

    async def _report(self, deployment: apps_pb2.Deployment) -> float | None:
        """Write the status where it changed; the result is when the progress deadline is to be looked at."""
        now, uid = self._clock(), deployment.metadata.uid
        sets = self._sets.of(uid)

        def change(live: apps_pb2.Deployment) -> bool:
            new = revisions.newest(live, sets)
            status = progress.compute(live, new, [each for each in sets if each is not new], now)
            if live.metadata.generation != deployment.metadata.generation:
                # Changed while we worked: what we have seen of its spec is the older one.
                status.observedGeneration = deployment.metadata.generation
            if status == live.status:
                return False
            live.status.CopyFrom(status)
            return True

        live = await self._objects.mutate(DEPLOYMENT, *key_of(deployment), change, status=True, uid=uid)
        return progress.next_check(live, live.status, now)
