"""What the cache holds and hands out: stored objects and the events of their change, as bytes and as messages.

Pure. The bytes of the store are never encoded again: resourceVersion is appended to them (concatenated protobuf
messages merge), and an event's encoding is made once for all of its watchers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from podplane.kinds import KINDS, Kind
from podplane.v1 import meta_pb2

EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]

_LENGTH_DELIMITED = 2


def key_of(kind: Kind, namespace: str, name: str) -> str:
    """The object's key in the store: `pods/default/web`, `nodes//node-1`."""
    return f"{kind.plural}/{namespace if kind.namespaced else ''}/{name}"


def _tag(number: int) -> int:
    return number << 3 | _LENGTH_DELIMITED


def _field(tag: int, content: bytes) -> bytes:
    """One length-delimited field, for tags below 16 (one byte), as protobuf's encoding has it."""
    length = len(content)
    if length <= 0x7F:
        return bytes((tag, length)) + content
    prefix = bytearray((tag,))
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + content


_METADATA = {kind.name: _tag(kind.message.DESCRIPTOR.fields_by_name["metadata"].number) for kind in KINDS.values()}
_RESOURCE_VERSION = _tag(meta_pb2.ObjectMeta.DESCRIPTOR.fields_by_name["resourceVersion"].number)
# <Kind>WatchEvent has the same numbers for every kind; tests/controlplane/store checks it.
_EVENT_TYPE, _EVENT_OBJECT = _tag(1), _tag(2)


@dataclass(frozen=True, slots=True)
class Stored:
    """One object at one revision. `data` is its encoding without resourceVersion; `created` a revision."""

    kind: Kind
    key: str
    revision: int
    created: int
    data: bytes
    _decoded: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def namespace(self) -> str:
        return self.key.split("/", 2)[1]

    @property
    def name(self) -> str:
        return self.key.split("/", 2)[2]

    @property
    def wire(self) -> bytes:
        """The encoding with metadata.resourceVersion."""
        version = _field(_RESOURCE_VERSION, b"%d" % self.revision)
        return self.data + _field(_METADATA[self.kind.name], version)

    @property
    def obj(self) -> Any:
        """The message, with resourceVersion, decoded once and SHARED: copy it before you change it."""
        if not self._decoded:
            self._decoded.append(self.kind.parse(self.wire))
        return self._decoded[0]


@dataclass(frozen=True, slots=True)
class Event:
    """One change. A DELETED event's `stored` is the last state, at the revision of the deletion.

    `previous` is the state before; its revision is 0 where the change is older than this process.
    """

    type: EventType
    stored: Stored
    previous: Stored | None = None
    _encoded: list[bytes] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def revision(self) -> int:
        return self.stored.revision

    def wire(self) -> bytes:
        """The encoded <Kind>WatchEvent, made once."""
        if not self._encoded:
            self._encoded.append(_field(_EVENT_TYPE, self.type.encode()) + _field(_EVENT_OBJECT, self.stored.wire))
        return self._encoded[0]
