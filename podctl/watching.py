"""Watches that outlive their connection: they resume after the last revision seen, and list again where that expired.

Fails with TimedOut at the deadline; any refusal of the server (Forbidden, Invalid ...) ends the watch.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from podctl.client import Change, Client, Query
from podplane.errors import Expired, PodplaneError, Unavailable
from podplane.kinds import Kind

_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)


class TimedOut(PodplaneError):
    """The deadline passed before what was waited for came."""


class Watcher:
    """Follows the objects of one query from a list that the caller has already seen."""

    def __init__(
        self,
        client: Client,
        kind: Kind,
        query: Query,
        seen: Sequence[Any],
        revision: str,
        deadline: float | None = None,
    ) -> None:
        """`deadline` in time.monotonic()'s seconds; None waits for ever."""
        self._client, self._kind, self._query = client, kind, query
        self._known = {obj.metadata.uid: obj for obj in seen}
        self._revision = revision
        self._deadline = deadline
        self._failures = 0

    def changes(self) -> Iterator[Change]:
        """ADDED, MODIFIED and DELETED, each once, whatever happens to the connection."""
        while True:
            try:
                yield from self._stream()
            except Expired:
                yield from self._list_again()
            except Unavailable as error:
                self._pause(error)

    def _stream(self) -> Iterator[Change]:
        left = None if self._deadline is None else self._left()
        for change in self._client.watch(self._kind, self._query, self._revision, timeout=left):
            self._failures = 0
            self._revision = change.object.metadata.resourceVersion or self._revision
            if change.type == "BOOKMARK":
                continue
            self._note(change)
            yield change
        # The server ended the stream in order, perhaps because it stops: do not ask again in a tight loop.
        self._pause(None)

    def _note(self, change: Change) -> None:
        if change.type == "DELETED":
            self._known.pop(change.object.metadata.uid, None)
        else:
            self._known[change.object.metadata.uid] = change.object

    def _list_again(self) -> Iterator[Change]:
        page = self._client.list(self._kind, self._query)
        found = {obj.metadata.uid: obj for obj in page.items}
        before, self._known, self._revision = self._known, found, page.revision
        for uid, obj in before.items():
            if uid not in found:
                yield Change("DELETED", obj)
        for uid, obj in found.items():
            old = before.get(uid)
            if old is None:
                yield Change("ADDED", obj)
            elif old.metadata.resourceVersion != obj.metadata.resourceVersion:
                yield Change("MODIFIED", obj)

    def _pause(self, error: Unavailable | None) -> None:
        pause = _RETRY_SECONDS[min(self._failures, len(_RETRY_SECONDS) - 1)]
        self._failures += 1
        if self._deadline is not None:
            pause = min(pause, self._left())
        if error is not None and self._failures == 2:
            print(f"Warning: the watch is interrupted, trying again: {error}", file=sys.stderr)
        time.sleep(pause)

    def _left(self) -> float:
        assert self._deadline is not None
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimedOut("timed out")
        return left


def await_gone(client: Client, kind: Kind, namespace: str, name: str, uid: str, deadline: float | None) -> None:
    """Return once no object of that name has that uid. TimedOut at the deadline."""
    query = Query(namespace, fields=f"metadata.name={name}")
    page = client.list(kind, query)
    if not any(obj.metadata.uid == uid for obj in page.items):
        return
    for change in Watcher(client, kind, query, page.items, page.revision, deadline).changes():
        if change.type == "DELETED" and change.object.metadata.uid == uid:
            return
