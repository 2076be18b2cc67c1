"""Metadata of every kind: names, labels, annotations, owners, and what an update may not change. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controlplane.api.admission_context import AdmissionContext
from controlplane.api.validation.problems import Problems
from podplane import names
from podplane.errors import FieldError
from podplane.kinds import KINDS, NAMESPACE, SERVICE, Kind
from podplane.names import Check
from podplane.v1 import meta_pb2

MAX_ANNOTATIONS = 256 * 1024
_IMMUTABLE = ("name", "namespace", "uid", "creationTimestamp")
_NAME_CHECKS: dict[str, Check] = {SERVICE.name: names.dns_1035_label, NAMESPACE.name: names.dns_label}


def metadata(obj: Any, old: Any, _context: AdmissionContext) -> list[FieldError]:
    """The metadata of an object of any kind."""
    found = Problems()
    kind = KINDS[obj.DESCRIPTOR.name]
    _name(obj.metadata, kind, found)
    label_map(obj.metadata.labels, "metadata.labels", found)
    annotation_map(obj.metadata.annotations, "metadata.annotations", found)
    _owners(obj.metadata, found)
    for index, finalizer in enumerate(obj.metadata.finalizers):
        found.syntax(f"metadata.finalizers[{index}]", finalizer, names.qualified_name)
    if old is not None:
        for name in _IMMUTABLE:
            if getattr(obj.metadata, name):
                found.immutable(f"metadata.{name}", getattr(obj.metadata, name), getattr(old.metadata, name))
    return found


def label_map(values: Mapping[str, str], path: str, found: Problems) -> None:
    """Keys are qualified names, values are label values."""
    for key, value in sorted(values.items()):
        found.syntax(path, key, names.qualified_name)
        found.syntax(path, value, names.label_value, required=False)


def annotation_map(values: Mapping[str, str], path: str, found: Problems) -> None:
    """Keys are qualified names in any case; all of it together is bounded."""
    for key in sorted(values):
        for detail in names.qualified_name(key.lower()):
            found.invalid(path, key, detail)
    if sum(len(key.encode()) + len(value.encode()) for key, value in values.items()) > MAX_ANNOTATIONS:
        found.too_long(path, MAX_ANNOTATIONS)


def _name(metadata: meta_pb2.ObjectMeta, kind: Kind, found: Problems) -> None:
    check = _NAME_CHECKS.get(kind.name, names.dns_subdomain)
    if metadata.name:
        found.syntax("metadata.name", metadata.name, check)
    elif metadata.generateName:
        # The suffix that completes it is alphanumeric: a trailing dash is fine.
        found.syntax("metadata.generateName", metadata.generateName.removesuffix("-"), check)
    else:
        found.required("metadata.name", "name or generateName is required")
    if not kind.namespaced:
        if metadata.namespace:
            found.forbidden("metadata.namespace", "not allowed on this type")
    else:
        found.syntax("metadata.namespace", metadata.namespace, names.dns_label)


def _owners(metadata: meta_pb2.ObjectMeta, found: Problems) -> None:
    controllers = []
    for index, owner in enumerate(metadata.ownerReferences):
        path = f"metadata.ownerReferences[{index}]"
        for name in ("apiVersion", "kind", "name", "uid"):
            if not getattr(owner, name):
                found.invalid(f"{path}.{name}", "", "must not be empty")
        if owner.controller:
            controllers.append(owner.name)
    if len(controllers) > 1:
        found.invalid("metadata.ownerReferences", ", ".join(controllers), "Only one reference can have Controller set")
