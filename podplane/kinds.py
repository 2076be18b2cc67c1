"""Every kind that is stored and served, read from the descriptors: no list of kinds is written down twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any, Protocol, cast

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from podplane.errors import NotFound
from podplane.v1 import (
    apps_pb2,
    config_pb2,
    endpointslice_pb2,
    event_pb2,
    meta_pb2,
    namespace_pb2,
    node_pb2,
    options_pb2,
    pod_pb2,
    service_pb2,
)

_FILES: tuple[ModuleType, ...] = (
    namespace_pb2,
    node_pb2,
    pod_pb2,
    service_pb2,
    endpointslice_pb2,
    config_pb2,
    event_pb2,
    apps_pb2,
)


class Object(Protocol):
    """A message of a stored kind: what every one of them has."""

    apiVersion: str
    kind: str

    @property
    def metadata(self) -> meta_pb2.ObjectMeta: ...


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind: its names as people type them, and its messages."""

    name: str
    plural: str
    short_names: tuple[str, ...]
    namespaced: bool
    api_version: str
    message: type[Message]
    list_message: type[Message]

    @property
    def group(self) -> str:
        """The API group: "" for v1, "apps" for apps/v1."""
        return self.api_version.rpartition("/")[0]

    def parse(self, data: bytes) -> Any:
        """The object that `data` encodes, as this kind's message."""
        return self.message.FromString(data)

    def qualified(self, name: str) -> str:
        """How messages name an object: `pods "web"`, `deployments.apps "web"`."""
        return f'{self.plural}{"." + self.group if self.group else ""} "{name}"'


def _kinds() -> dict[str, Kind]:
    found: dict[str, Kind] = {}
    for file in _FILES:
        for name, descriptor in file.DESCRIPTOR.message_types_by_name.items():
            options = descriptor.GetOptions()
            if not options.HasExtension(options_pb2.resource):
                continue
            resource = options.Extensions[options_pb2.resource]
            found[name] = Kind(
                name=name,
                plural=resource.plural,
                short_names=tuple(resource.shortNames),
                namespaced=resource.namespaced,
                api_version=resource.apiVersion,
                message=GetMessageClass(descriptor),
                list_message=cast("type[Message]", getattr(file, f"{name}List")),
            )
    return found


KINDS: Mapping[str, Kind] = MappingProxyType(_kinds())
"""By kind name, as in a manifest: KINDS["Pod"]."""

NAMESPACE, NODE, POD = KINDS["Namespace"], KINDS["Node"], KINDS["Pod"]
SERVICE, ENDPOINT_SLICE = KINDS["Service"], KINDS["EndpointSlice"]
CONFIG_MAP, SECRET, EVENT = KINDS["ConfigMap"], KINDS["Secret"], KINDS["Event"]
DEPLOYMENT, REPLICA_SET = KINDS["Deployment"], KINDS["ReplicaSet"]

_TYPED: dict[str, Kind] = {}
for _kind in KINDS.values():
    for _name in (_kind.plural, _kind.name.lower(), *_kind.short_names):
        _TYPED[_name] = _kind
        if _kind.group:
            _TYPED[f"{_name}.{_kind.group}"] = _kind


def kind_of(obj: Message) -> Kind:
    """The kind of a message; NotFound where it is not a stored kind."""
    try:
        return KINDS[obj.DESCRIPTOR.name]
    except KeyError:
        raise NotFound(f"{obj.DESCRIPTOR.full_name} is not a kind that is stored") from None


def typed(word: str) -> Kind:
    """The kind that a person means by `pods`, `Pod`, `po` or `deployments.apps`; NotFound names those there are."""
    try:
        return _TYPED[word.lower()]
    except KeyError:
        known = ", ".join(sorted(kind.plural for kind in KINDS.values()))
        raise NotFound(f'the server does not have a resource type "{word}"; it has {known}') from None
