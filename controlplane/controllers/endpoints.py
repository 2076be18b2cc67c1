"""EndpointSlices: the addresses behind every service with a selector, as its pods come, get ready and go.

Owns the slices that carry its managed-by label, and no other. slices.py decides; this module finds the services that
a pod's change concerns (by an index, not by asking every service) and writes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from controlplane.controllers import slices
from controlplane.controllers.facts import ObjectKey, key_of
from controlplane.controllers.loop import Source, control
from controlplane.controllers.queue import WorkQueue
from controlplane.objects import Objects
from controlplane.store.stored import Event
from podplane.errors import AlreadyExists, NotFound, PodplaneError
from podplane.kinds import ENDPOINT_SLICE, POD, SERVICE
from podplane.v1 import endpointslice_pb2, pod_pb2, service_pb2

_Label = tuple[str, str, str]
"""namespace, key, value."""


class _Index:
    """Names by label, so that a selector and its pods find each other without a walk over all of them."""

    def __init__(self) -> None:
        self._by_label: defaultdict[_Label, set[ObjectKey]] = defaultdict(set)

    def add(self, key: ObjectKey, labels: Iterable[tuple[str, str]]) -> None:
        for name, value in labels:
            self._by_label[key[0], name, value].add(key)

    def remove(self, key: ObjectKey, labels: Iterable[tuple[str, str]]) -> None:
        for name, value in labels:
            found = self._by_label.get((key[0], name, value))
            if found is not None:
                found.discard(key)
                if not found:
                    del self._by_label[key[0], name, value]

    def get(self, namespace: str, name: str, value: str) -> set[ObjectKey]:
        return self._by_label.get((namespace, name, value), set())


async def run(objects: Objects, queue: WorkQueue[ObjectKey]) -> None:
    """Control the slices of all services, for ever."""
    await _Controller(objects).run(queue)


class _Controller:
    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._pods = _Index()
        self._services = _Index()

    async def run(self, queue: WorkQueue[ObjectKey]) -> None:
        sources = [
            Source(SERVICE, self._service_keys),
            Source(POD, self._pod_keys),
            Source(ENDPOINT_SLICE, self._slice_keys),
        ]
        await control("endpoints", self._objects, queue, self.reconcile, sources=sources, everything=self._everything)

    def _everything(self) -> list[ObjectKey]:
        self._pods, self._services = _Index(), _Index()
        for pod in self._objects.list(POD):
            self._pods.add(key_of(pod), pod.metadata.labels.items())
        for service in self._objects.list(SERVICE):
            self._services.add(key_of(service), _first(service.spec.selector))
        left = [_service_of(each) for each in self._objects.list(ENDPOINT_SLICE)]
        return [*(key_of(each) for each in self._objects.list(SERVICE)), *(key for key in left if key is not None)]

    def _service_keys(self, event: Event) -> Iterable[ObjectKey]:
        service: service_pb2.Service = event.stored.obj
        if event.previous is not None:
            self._services.remove(key_of(service), _first(event.previous.obj.spec.selector))
        if event.type != "DELETED":
            self._services.add(key_of(service), _first(service.spec.selector))
        return [key_of(service)]

    def _pod_keys(self, event: Event) -> Iterable[ObjectKey]:
        pod: pod_pb2.Pod = event.stored.obj
        before: pod_pb2.Pod | None = event.previous.obj if event.previous is not None else None
        if before is not None and (event.type == "DELETED" or before.metadata.labels != pod.metadata.labels):
            self._pods.remove(key_of(pod), before.metadata.labels.items())
        if event.type != "DELETED":
            self._pods.add(key_of(pod), pod.metadata.labels.items())
        states = [pod] if before is None or before.metadata.labels == pod.metadata.labels else [before, pod]
        return {key for state in states for key in self._serving(state)}

    def _serving(self, pod: pod_pb2.Pod) -> Iterable[ObjectKey]:
        labels, namespace = dict(pod.metadata.labels), pod.metadata.namespace
        for name, value in labels.items():
            for key in self._services.get(namespace, name, value):
                stored = self._objects.cache.get(SERVICE, *key)
                if stored is not None and stored.obj.spec.selector.items() <= labels.items():
                    yield key

    def _slice_keys(self, event: Event) -> Iterable[ObjectKey]:
        key = _service_of(event.stored.obj)
        return [key] if key is not None else []

    async def reconcile(self, key: ObjectKey) -> float | None:
        """Make one service's slices be as its pods are."""
        stored = self._objects.cache.get(SERVICE, *key)
        existing = self._slices(key)
        if stored is None or not slices.is_managed(stored.obj):
            # Where the service has lost its selector, the slices stay, as in Kubernetes: they are its owner's now.
            gone = stored is None or stored.obj.spec.type == "ExternalName"
            plan = slices.Plan(delete=existing if gone else [])
        else:
            plan = slices.plan(stored.obj, self._selected(stored.obj), existing)
        await self._write(plan)
        return None

    def _slices(self, service: ObjectKey) -> list[endpointslice_pb2.EndpointSlice]:
        return [each for each in self._objects.list(ENDPOINT_SLICE, service[0]) if _service_of(each) == service]

    def _selected(self, service: service_pb2.Service) -> list[pod_pb2.Pod]:
        selector = dict(service.spec.selector)
        namespace = service.metadata.namespace
        names = min((self._pods.get(namespace, *pair) for pair in selector.items()), key=len)
        found = (self._objects.cache.get(POD, *key) for key in sorted(names))
        pods = [stored.obj for stored in found if stored is not None]
        return [pod for pod in pods if selector.items() <= dict(pod.metadata.labels).items()]

    async def _write(self, plan: slices.Plan) -> None:
        writes = [
            *(self._objects.create(each) for each in plan.create),
            *(self._objects.update(each) for each in plan.update),
            *(self._delete(each) for each in plan.delete),
        ]
        for result in await self._objects.transact(writes):
            if isinstance(result, PodplaneError) and not isinstance(result, AlreadyExists):
                raise result

    async def _delete(self, each: endpointslice_pb2.EndpointSlice) -> None:
        try:
            await self._objects.delete(ENDPOINT_SLICE, *key_of(each), uid=each.metadata.uid)
        except NotFound:
            return


def _first(selector: Mapping[str, str]) -> list[tuple[str, str]]:
    """One label of the selector: who has it may match."""
    return sorted(selector.items())[:1]


def _service_of(each: endpointslice_pb2.EndpointSlice) -> ObjectKey | None:
    labels = each.metadata.labels
    if labels.get(slices.MANAGED_BY) != slices.MANAGER:
        return None
    return each.metadata.namespace, labels.get(slices.SERVICE_NAME, "")
