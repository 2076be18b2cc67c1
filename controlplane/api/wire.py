"""Lists and watch frames as protobuf bytes, put together from stored bytes without decoding them.

Pure. A length-delimited field is tag, varint length, bytes; field numbers come from the descriptors.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from google.protobuf.descriptor import Descriptor

from controlplane.store.stored import Event, Stored
from podplane.kinds import Kind
from podplane.v1 import meta_pb2, pod_pb2

_LIST = pod_pb2.PodList.DESCRIPTOR
"""Pod's, for all: tests/controlplane/api/test_wire.py checks that every kind has the same numbers."""


@functools.lru_cache(1 << 14)
def varint(value: int) -> bytes:
    """An unsigned protobuf varint. Most are tags and lengths, and the same again and again."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def number(message: Descriptor, field: str) -> int:
    """The number of a field; KeyError where there is no such field."""
    return message.fields_by_name[field].number


def delimited(field: int, content: bytes) -> bytes:
    """A length-delimited field: a message, string or bytes."""
    return varint(field << 3 | 2) + varint(len(content)) + content


def integer(field: int, value: int) -> bytes:
    """A varint field."""
    return varint(field << 3) + varint(value)


_ITEMS = number(_LIST, "items")
_EVENTS = number(pod_pb2.PodWatchFrame.DESCRIPTOR, "events")


def frame(events: Iterable[Event]) -> bytes:
    """A watch frame; each event's own encoding is made once for all of its watchers."""
    return b"".join(delimited(_EVENTS, event.wire()) for event in events)


def bookmark(kind: Kind, revision: int) -> Event:
    """The event that says: everything up to `revision` has been sent."""
    return Event("BOOKMARK", Stored(kind, "", revision, 0, b""))


def item(wire: bytes) -> bytes:
    """One object, encoded with its resourceVersion, as an item of its kind's list."""
    return delimited(_ITEMS, wire)


def page(kind: Kind, items: Iterable[bytes], metadata: meta_pb2.ListMeta) -> bytes:
    """A list message of items from `item`."""
    head = (
        delimited(number(_LIST, "apiVersion"), kind.api_version.encode())
        + delimited(number(_LIST, "kind"), f"{kind.name}List".encode())
        + delimited(number(_LIST, "metadata"), metadata.SerializeToString())
    )
    return head + b"".join(items)
