"""What the node knows of the cluster beside its pods: config maps, secrets, services, endpoint slices and nodes.

Kept so that pods go on, restarts included, while the control plane is away: config maps, services and nodes in the
state directory, secrets only in the run directory (tmpfs), endpoint slices of headless services for their names; no
others (the kernel has the rules). Services and slices, of which there are many, are kept in one log (objectlog.py), all
else in a file each, so that nothing is left of a secret that goes.
A file that cannot be read is left out and reported: the next snapshot brings the object again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError, Message

from nodeagent.garbage import uncollected
from nodeagent.paths import Paths
from nodeagent.pods.objectlog import ObjectLog
from podplane.files import replace
from podplane.v1.config_pb2 import ConfigMap, Secret
from podplane.v1.endpointslice_pb2 import EndpointSlice
from podplane.v1.node_pb2 import Node
from podplane.v1.service_pb2 import Service
from podplane.v1.session_pb2 import ObjectChange

log = logging.getLogger(__name__)

Key = tuple[str, str]
"""(namespace, name)"""

_HEADLESS = "service.kubernetes.io/headless"
_MESSAGES: Mapping[str, type[Message]] = {
    "configMap": ConfigMap,
    "secret": Secret,
    "service": Service,
    "endpointSlice": EndpointSlice,
    "node": Node,
}
_LOGGED = ("service", "endpointSlice")


class Objects:
    """By field name of ObjectChange, then by (namespace, name)."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._log = ObjectLog(paths.objects / "services.log")
        self._is_log_read = False
        self._all: dict[str, dict[Key, Any]] = {kind: {} for kind in _MESSAGES}
        self._listeners: list[Callable[[str, Key], None]] = []

    def listen(self, listener: Callable[[str, Key], None]) -> None:
        """Call back after each change, with the field name of ObjectChange and the object's key."""
        self._listeners.append(listener)

    def _changed(self, kind: str, key: Key) -> None:
        for listener in self._listeners:
            listener(kind, key)

    @property
    def config_maps(self) -> Mapping[Key, ConfigMap]:
        return self._all["configMap"]

    @property
    def secrets(self) -> Mapping[Key, Secret]:
        return self._all["secret"]

    @property
    def services(self) -> Mapping[Key, Service]:
        return self._read_log()["service"]

    @property
    def endpoint_slices(self) -> Mapping[Key, EndpointSlice]:
        return self._read_log()["endpointSlice"]

    @property
    def nodes(self) -> Mapping[Key, Node]:
        return self._all["node"]

    def load(self) -> None:
        """Take up what an earlier agent kept; services once they are asked for: a snapshot may come before."""
        old: list[Path] = []
        for directory in (self._paths.objects, self._paths.secrets):
            for path in directory.glob("*.pb"):
                kind = path.name.partition("-")[0]
                try:
                    message = _MESSAGES[kind].FromString(path.read_bytes())
                except (KeyError, DecodeError, OSError) as error:
                    log.warning("cannot read %s: %s: it is left out", path, error)
                    continue
                self._all[kind][_key(message)] = message
                if kind in _LOGGED:
                    old.append(path)
        # Until 2026 services had a file each.
        if old:
            self._read_log()
            if self._log.replace(self._logged()):
                for path in old:
                    path.unlink(missing_ok=True)

    def _read_log(self) -> Mapping[str, dict[Key, Any]]:
        if not self._is_log_read:
            self._is_log_read = True
            with uncollected():
                for kind, message in self._log.load():
                    self._all[kind][_key(message)] = message
        return self._all

    def _logged(self) -> Iterator[ObjectChange]:
        for message in self._all["service"].values():
            yield ObjectChange(type="ADDED", service=message)
        for item in self._all["endpointSlice"].values():
            if _HEADLESS in item.metadata.labels:
                yield ObjectChange(type="ADDED", endpointSlice=item)

    def apply(self, change: ObjectChange) -> None:
        """Take a delta in; one that changes nothing tells nobody."""
        kind = change.WhichOneof("object")
        if kind is not None:
            self._read_log()
            message = getattr(change, kind)
            self._take(change, kind, _key(message), message)
            self._log.flush(self._logged)

    def replace_all(self, changes: Iterable[ObjectChange], *, authoritative: bool) -> None:
        """Take a snapshot in. What it does not hold is gone; config maps and secrets only where it may say so."""
        with uncollected():
            self._replace_all(changes, authoritative)

    def _replace_all(self, changes: Iterable[ObjectChange], authoritative: bool) -> None:
        if not self._is_log_read:
            self._is_log_read = True
            self._log.supersede()
        seen: dict[str, set[Key]] = {kind: set() for kind in _MESSAGES}
        for change in changes:
            kind = change.WhichOneof("object")
            if kind is not None:
                message = getattr(change, kind)
                key = _key(message)
                seen[kind].add(key)
                self._take(change, kind, key, message)
        for name, known in self._all.items():
            if not authoritative and name in ("configMap", "secret"):
                continue
            for key in known.keys() - seen[name]:
                self._remove(name, key)
        self._log.flush(self._logged)

    def _take(self, change: ObjectChange, kind: str, key: Key, message: Any) -> None:
        if change.type == "DELETED":
            self._remove(kind, key)
            return
        if kind == "node":
            message = _reduced(message)
        known = self._all[kind].get(key)
        if known == message:
            return
        self._all[kind][key] = message
        if kind not in _LOGGED:
            self._keep(kind, key, message)
        elif _is_kept(kind, message):
            self._log.add(change)
        elif known is not None and _is_kept(kind, known):
            self._log.add(_gone(kind, key))
        self._changed(kind, key)

    def _remove(self, kind: str, key: Key) -> None:
        known = self._all[kind].pop(key, None)
        if known is None:
            return
        if kind not in _LOGGED:
            self._path(kind, key).unlink(missing_ok=True)
        elif _is_kept(kind, known):
            self._log.add(_gone(kind, key))
        self._changed(kind, key)

    def _path(self, kind: str, key: Key) -> Path:
        directory = self._paths.secrets if kind == "secret" else self._paths.objects
        return directory / f"{kind}-{hashlib.sha256('/'.join(key).encode()).hexdigest()[:40]}.pb"

    def _keep(self, kind: str, key: Key, message: Any) -> None:
        path = self._path(kind, key)
        try:
            replace(path, message.SerializeToString())
        except OSError as error:
            # It is known all the same, until the agent ends; the next one has it again from the next snapshot.
            log.warning("cannot keep %s %s: %s", kind, "/".join(key), error)
            path.unlink(missing_ok=True)


def _is_kept(kind: str, message: Any) -> bool:
    """Of what is logged."""
    return kind == "service" or _HEADLESS in message.metadata.labels


def _gone(kind: str, key: Key) -> ObjectChange:
    change = ObjectChange(type="DELETED")
    metadata = getattr(change, kind).metadata
    metadata.namespace, metadata.name = key
    return change


def _reduced(message: Node) -> Node:
    """Only what routes need: a node's conditions change all the time."""
    node = Node()
    node.metadata.name = message.metadata.name
    node.spec.podCIDR = message.spec.podCIDR
    node.status.addresses.extend(message.status.addresses)
    return node


def _key(message: Any) -> Key:
    metadata = message.metadata
    return metadata.namespace, metadata.name
