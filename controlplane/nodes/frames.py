"""Control frames as bytes: stored objects pass through without being decoded and encoded again. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.api.wire import delimited, integer, number
from controlplane.nodes.references import Reference
from controlplane.store.stored import Stored
from podplane.kinds import KINDS
from podplane.v1 import meta_pb2, session_pb2

_FRAME = session_pb2.ControlFrame.DESCRIPTOR
_CHANGE = session_pb2.ObjectChange.DESCRIPTOR
_REVISION = number(_FRAME, "revision")
_BIND, _UPDATE, _OBJECT = number(_FRAME, "bind"), number(_FRAME, "update"), number(_FRAME, "object")
_BATCH, _FRAMES = number(_FRAME, "batch"), number(session_pb2.ControlFrames.DESCRIPTOR, "frames")
_TYPE = number(_CHANGE, "type")
_TYPES = {kind: delimited(_TYPE, kind.encode()) for kind in ("ADDED", "MODIFIED", "DELETED")}
_OF_KIND = {
    "ConfigMap": number(_CHANGE, "configMap"),
    "Secret": number(_CHANGE, "secret"),
    "Service": number(_CHANGE, "service"),
    "EndpointSlice": number(_CHANGE, "endpointSlice"),
    "Node": number(_CHANGE, "node"),
}


def bind(stored: Stored, revision: int = 0) -> bytes:
    """A pod that is new to the node."""
    return _revision(revision) + delimited(_BIND, stored.wire)


def update(stored: Stored, revision: int = 0) -> bytes:
    """A pod of the node that has changed."""
    return _revision(revision) + delimited(_UPDATE, stored.wire)


def unbind(stored: Stored, revision: int) -> bytes:
    """A pod whose object is gone. No grace is left: either the agent has said that it ended, or it was forced."""
    metadata = stored.obj.metadata
    pod = session_pb2.Unbind(namespace=metadata.namespace, name=metadata.name, uid=metadata.uid, gracePeriodSeconds=0)
    return session_pb2.ControlFrame(revision=revision, unbind=pod).SerializeToString()


def change(kind: str, stored: Stored, revision: int = 0) -> bytes:
    """A change of anything but pods; `kind` is ADDED, MODIFIED or DELETED (which carries metadata only)."""
    wire = _metadata_only(stored) if kind == "DELETED" else stored.wire
    body = _TYPES[kind] + delimited(_OF_KIND[stored.kind.name], wire)
    return _revision(revision) + delimited(_OBJECT, body)


def drop(reference: Reference, revision: int) -> bytes:
    """A config map or secret that no pod of the node uses any more: the agent shall not keep it."""
    kind, namespace, name = reference
    gone = KINDS[kind].message(kind=kind, metadata=meta_pb2.ObjectMeta(namespace=namespace, name=name))
    body = _TYPES["DELETED"] + delimited(_OF_KIND[kind], gone.SerializeToString())
    return _revision(revision) + delimited(_OBJECT, body)


def snapshot_begin() -> bytes:
    """What follows, up to the end, is all that the node has."""
    return session_pb2.ControlFrame(snapshotBegin=session_pb2.SnapshotBegin()).SerializeToString()


def snapshot_end(revision: int) -> bytes:
    """The snapshot is whole, and of `revision`."""
    return session_pb2.ControlFrame(revision=revision, snapshotEnd=session_pb2.SnapshotEnd()).SerializeToString()


def verdict(uid: str, keep: bool, reason: str) -> bytes:
    """What shall become of a pod that the snapshot does not hold."""
    word = session_pb2.Verdict(uid=uid, keep=keep, reason=reason)
    return session_pb2.ControlFrame(verdict=word).SerializeToString()


def withdrawn(uid: str) -> bytes:
    """No node's rules lead to this pod any more."""
    return session_pb2.ControlFrame(withdrawn=session_pb2.Withdrawn(uid=uid)).SerializeToString()


def goodbye(reason: str, reconnect: bool) -> bytes:
    """The session ends."""
    word = session_pb2.Goodbye(reason=reason, reconnect=reconnect)
    return session_pb2.ControlFrame(goodbye=word).SerializeToString()


def heartbeat() -> bytes:
    """The control plane lives."""
    beat = session_pb2.Heartbeat()
    beat.sentAt.GetCurrentTime()
    return session_pb2.ControlFrame(heartbeat=beat).SerializeToString()


def batch(several: Iterable[bytes]) -> bytes:
    """Frames as one."""
    return delimited(_BATCH, b"".join(delimited(_FRAMES, frame) for frame in several))


def _revision(revision: int) -> bytes:
    return integer(_REVISION, revision) if revision else b""


def _metadata_only(stored: Stored) -> bytes:
    full = stored.obj.metadata
    metadata = meta_pb2.ObjectMeta(
        name=full.name, namespace=full.namespace, uid=full.uid, resourceVersion=str(stored.revision)
    )
    if not full.namespace:
        metadata.ClearField("namespace")
    return stored.kind.message(
        apiVersion=stored.kind.api_version, kind=stored.kind.name, metadata=metadata
    ).SerializeToString()
