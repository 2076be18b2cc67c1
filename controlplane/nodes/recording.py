"""Events that agents report, into the store: repeated ones are counted in one Event object, as Kubernetes does.

Owns a bounded memory of recent events. An event is worth telling, not worth failing for: what cannot be stored is
logged and dropped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Iterable

from controlplane.objects import Objects
from podplane.errors import NotFound, PodplaneError
from podplane.kinds import EVENT
from podplane.times import stamp
from podplane.v1 import event_pb2

logger = logging.getLogger(__name__)

REMEMBERED = 4096
COMPONENT = "podplane-nodeagent"

_Key = tuple[str, ...]


class Recorder:
    """Stores events; the same involved object, reason, message, type and source make one event."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._known: OrderedDict[_Key, tuple[str, str]] = OrderedDict()

    async def record_all(self, events: Iterable[event_pb2.Event], host: str) -> None:
        """Store events of the agent on node `host`, together; of one that is there twice the second is counted."""
        left = list(events)
        while left:
            first = {_key(event): event for event in reversed(left)}
            await asyncio.gather(*(self.record(event, host) for event in left if first[_key(event)] is event))
            left = [event for event in left if first[_key(event)] is not event]

    async def record(self, event: event_pb2.Event, host: str) -> None:
        """Store an event of the agent on node `host`, or count it."""
        try:
            await self._store(_normal(event, host))
        except PodplaneError as error:
            involved = event.involvedObject
            fields = {"reason": event.reason, "object": f"{involved.namespace}/{involved.name}", "error": error}
            logger.warning("cannot store an event", extra=fields)

    async def node_warning(self, node: str, reason: str, message: str) -> None:
        """A Warning about a node that the control plane itself has to tell."""
        event = event_pb2.Event(reason=reason, message=message, type="Warning")
        involved = event.involvedObject
        involved.kind, involved.apiVersion, involved.name, involved.uid = "Node", "v1", node, node
        await self.record(event, node)

    async def _store(self, event: event_pb2.Event) -> None:
        key = _key(event)
        known = self._known.get(key)
        if known is not None and await self._count(known, event):
            self._known.move_to_end(key)
            return
        made = await self._objects.create(event)
        self._known[key] = (made.metadata.namespace, made.metadata.name)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    async def _count(self, known: tuple[str, str], event: event_pb2.Event) -> bool:
        """True where the event object is still there to be counted up."""

        def change(held: event_pb2.Event) -> bool:
            held.count += max(event.count, 1)
            held.lastTimestamp.CopyFrom(event.lastTimestamp)
            return True

        try:
            await self._objects.mutate(EVENT, *known, change)
        except NotFound:
            return False
        return True


def _normal(event: event_pb2.Event, host: str) -> event_pb2.Event:
    """The event as it is stored: named, placed, timed, and from nobody but its node."""
    made = event_pb2.Event()
    made.CopyFrom(event)
    made.ClearField("metadata")
    made.metadata.name = f"{event.involvedObject.name or host}.{time.time_ns():x}"
    made.metadata.namespace = event.involvedObject.namespace or "default"
    made.source.host = host
    made.source.component = event.source.component or COMPONENT
    made.count = max(event.count, 1)
    for field in ("firstTimestamp", "lastTimestamp"):
        if not event.HasField(field):
            getattr(made, field).CopyFrom(stamp(time.time()))
    return made


def _key(event: event_pb2.Event) -> _Key:
    involved = event.involvedObject
    return (
        involved.kind,
        involved.namespace,
        involved.name,
        involved.uid,
        involved.fieldPath,
        event.reason,
        event.message,
        event.type,
        event.source.component,
        event.source.host,
    )
