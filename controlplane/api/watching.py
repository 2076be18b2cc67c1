"""The watch verb: what exists, a bookmark, then every change in order, or the changes after a revision.

Owns one subscription a stream. With a selector, an object that leaves the selection is DELETED for the watcher and
one that enters it is ADDED. Fails with Expired where the revision is compacted or the watcher reads too slowly.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence

from controlplane.api.paging import PAGE_BYTES
from controlplane.api.selection import Predicate, predicate
from controlplane.api.wire import bookmark, frame
from controlplane.store.cache import Subscription, WatchCache
from controlplane.store.stored import Event, Stored
from podplane.errors import Invalid
from podplane.kinds import Kind
from podplane.v1 import requests_pb2

FRAME_EVENTS = 64


async def watch(cache: WatchCache, kind: Kind, request: requests_pb2.WatchRequest) -> AsyncIterator[bytes]:
    """Frames of at most 64 events and 3 MiB, encoded. resourceVersion unset or "0": from what exists now."""
    wanted = predicate(kind, request.labelSelector, request.fieldSelector)
    namespace = request.namespace or None
    after = _after(request.resourceVersion)
    # No await between the list and the watch: what happens after the list is in the subscription.
    existing = cache.list(kind, namespace) if after is None else None
    revision = cache.revision
    subscription = cache.watch(kind, after, namespace)
    try:
        if existing is not None:
            for chunk in frames(_added(existing, wanted)):
                yield chunk
            yield frame([bookmark(kind, revision)])
        async for chunk in _changes(subscription, wanted):
            yield chunk
    finally:
        subscription.close()


def _after(text: str) -> int | None:
    if text in ("", "0"):
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Invalid(f'resourceVersion: "{text}" is not one that this server gave')
    return int(text)


async def _changes(subscription: Subscription, wanted: Predicate | None) -> AsyncIterator[bytes]:
    async for batch in subscription:
        for chunk in frames(batch if wanted is None else selected(batch, wanted)):
            yield chunk


def _added(items: Sequence[Stored], wanted: Predicate | None) -> Iterator[Event]:
    return (Event("ADDED", stored) for stored in items if wanted is None or wanted(stored.obj))


def frames(events: Iterator[Event] | Sequence[Event]) -> Iterator[bytes]:
    """The events as frames within both bounds."""
    held: list[Event] = []
    size = 0
    for event in events:
        length = len(event.wire())
        if held and (len(held) == FRAME_EVENTS or size + length > PAGE_BYTES):
            yield frame(held)
            held, size = [], 0
        held.append(event)
        size += length
    if held:
        yield frame(held)


def selected(batch: Sequence[Event], wanted: Predicate) -> list[Event]:
    """The batch as a watcher with a selector sees it."""
    return [seen for event in batch if (seen := _seen(event, wanted)) is not None]


def _seen(event: Event, wanted: Predicate) -> Event | None:
    if event.type == "BOOKMARK":
        return event
    before = event.previous is not None and wanted(event.previous.obj)
    now = event.type != "DELETED" and wanted(event.stored.obj)
    if before and now:
        return event
    if now:
        return event if event.type == "ADDED" else Event("ADDED", event.stored)
    if not before or event.previous is None:
        return None
    return event if event.type == "DELETED" else Event("DELETED", _last_seen(event.previous, event.revision))


def _last_seen(previous: Stored, revision: int) -> Stored:
    """The state in which the object was last in the selection, at the revision at which it left."""
    return Stored(previous.kind, previous.key, revision, previous.created, previous.data)
