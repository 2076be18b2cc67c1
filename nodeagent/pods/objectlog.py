"""Services and endpoint slices as last seen: thousands, in one file, which the next agent reads in milliseconds.

Records of changes (records.py), of which the newest of an object counts; the file is written anew where most of them no
longer do. Owns the file. Not synced: what a power cut takes, the next snapshot brings again. What cannot be read is
left out and reported; what cannot be written is reported, and tried again with the next change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from nodeagent.records import append, record, records
from podplane.files import replace
from podplane.v1.session_pb2 import ObjectChange

log = logging.getLogger(__name__)

SPARE = 1000
"""Records that may be there for nothing, beside as many as there are objects."""


class ObjectLog:
    """One file. First `load` or `supersede`, then `add` and `flush`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[bytes] = []
        self._count = 0
        """Records in the file."""
        self._objects = 0
        """Those of them that counted when the file was read or written anew."""
        self._damaged = self._superseded = False

    def load(self) -> list[tuple[str, Any]]:
        """What counts: each object with its field name in ObjectChange."""
        found: dict[tuple[str, str, str], Any] = {}
        for change in self._changes():
            kind = change.WhichOneof("object")
            if kind is None:  # of a later version
                continue
            message = getattr(change, kind)
            key = kind, message.metadata.namespace, message.metadata.name
            if change.type == "DELETED":
                found.pop(key, None)
            else:
                found[key] = message
        self._objects = len(found)
        return [(kind, message) for (kind, *_), message in found.items()]

    def _changes(self) -> Iterator[ObjectChange]:
        good = 0
        try:
            data = self._path.read_bytes()
            for good, payload in records(data):  # noqa: B007  (where the last whole one ends)
                self._count += 1
                yield ObjectChange.FromString(payload)
            if good < len(data):
                self._damaged = True
                log.warning("%s is torn: its last %d bytes are left out", self._path, len(data) - good)
        except FileNotFoundError:
            return
        except (DecodeError, OSError) as error:
            self._damaged = True
            log.warning("cannot read all of %s: %s: the rest is left out", self._path, error)

    def supersede(self) -> None:
        """What is added until the next flush() takes the place of all that the file holds, which need not be read."""
        self._superseded = True

    def add(self, change: ObjectChange) -> None:
        """Keep a change; it is in the file after flush()."""
        self._waiting.append(record(change.SerializeToString()))

    def flush(self, whole: Callable[[], Iterable[ObjectChange]]) -> None:
        """Write what was added. whole: all that there is, asked for where the file is written anew."""
        if self._superseded or self._damaged or self._count + len(self._waiting) > 2 * self._objects + SPARE:
            self._replace(self._waiting if self._superseded else _records(whole()))
            return
        if not self._waiting:
            return
        try:
            append(self._path, b"".join(self._waiting))
        except OSError as error:
            log.warning("cannot keep services in %s: %s", self._path, error)
            return
        self._count += len(self._waiting)
        self._waiting.clear()

    def replace(self, whole: Iterable[ObjectChange]) -> bool:
        """Write the file anew, as a whole or not at all; whether that went well."""
        return self._replace(_records(whole))

    def _replace(self, content: list[bytes]) -> bool:
        self._waiting, self._superseded, self._damaged = [], False, True
        try:
            replace(self._path, b"".join(content))
        except OSError as error:
            log.warning("cannot keep services in %s: %s", self._path, error)
            return False
        self._count = self._objects = len(content)
        self._damaged = False
        return True


def _records(changes: Iterable[ObjectChange]) -> list[bytes]:
    return [record(change.SerializeToString()) for change in changes]
