"""Namespaces: those that always exist, and the emptying of one that is being deleted.

A namespace in deletion takes no new objects; this controller deletes what it holds, kind by kind, and removes it
when nothing is left. Pods leave as they do on any delete, when their node has reported their end.
"""

from __future__ import annotations

import logging

from controlplane.controllers.facts import is_terminating
from controlplane.controllers.loop import Source, control
from controlplane.controllers.queue import WorkQueue
from controlplane.objects import Objects
from podplane.errors import AlreadyExists, Conflict, NotFound, PodplaneError
from podplane.kinds import KINDS, NAMESPACE, POD, Kind
from podplane.v1 import namespace_pb2

log = logging.getLogger(__name__)

ALWAYS = ("default", "kube-system")
_LOOK_AGAIN = 2.0


async def ensure(objects: Objects) -> None:
    """Create the namespaces that every cluster has."""
    for name in ALWAYS:
        namespace = namespace_pb2.Namespace(apiVersion="v1", kind="Namespace")
        namespace.metadata.name = name
        try:
            await objects.create(namespace)
        except AlreadyExists:
            continue


async def run(objects: Objects, queue: WorkQueue[str]) -> None:
    """Control all namespaces, for ever."""

    async def reconcile(name: str) -> float | None:
        return await _finish(objects, name)

    await ensure(objects)
    await control(
        "namespaces",
        objects,
        queue,
        reconcile,
        sources=[Source(NAMESPACE, lambda event: [event.stored.name])],
        everything=lambda: [each.metadata.name for each in objects.list(NAMESPACE)],
        workers=2,
    )


async def _finish(objects: Objects, name: str) -> float | None:
    stored = objects.cache.get(NAMESPACE, "", name)
    if stored is None or not is_terminating(stored.obj):
        return None
    left = 0
    # Pods last: their controllers have to be gone, or they would be asked for again.
    for kind in sorted((each for each in KINDS.values() if each.namespaced), key=lambda each: each is POD):
        left += await _empty(objects, kind, name)
    if left:
        return _LOOK_AGAIN
    try:
        await objects.remove(NAMESPACE, "", name, stored.obj.metadata.uid)
    except Conflict:
        return _LOOK_AGAIN
    return None


async def _empty(objects: Objects, kind: Kind, namespace: str) -> int:
    """Delete what is not on its way out already; the result is how many objects are left."""
    found = objects.list(kind, namespace)
    doomed = [each for each in found if not is_terminating(each)]
    results = await objects.transact(
        objects.delete(kind, namespace, each.metadata.name, uid=each.metadata.uid) for each in doomed
    )
    for result in results:
        if isinstance(result, PodplaneError) and not isinstance(result, NotFound | Conflict):
            raise result
    return len(objects.cache.list(kind, namespace))
