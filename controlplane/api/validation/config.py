"""ConfigMaps and Secrets: keys that can be file names, bounded sizes, and immutability. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping

from controlplane.api.admission_context import AdmissionContext
from controlplane.api.validation.problems import Problems
from podplane import names
from podplane.errors import FieldError
from podplane.v1 import config_pb2

MAX_DATA = 1024 * 1024
_REQUIRED_KEYS: Mapping[str, tuple[str, ...]] = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}
_FIXED = "field is immutable when `immutable` is set"


def config_map(
    obj: config_pb2.ConfigMap, old: config_pb2.ConfigMap | None, _context: AdmissionContext
) -> list[FieldError]:
    """A config map: every key once, in data or in binaryData."""
    found = Problems()
    for name, keys in (("data", obj.data), ("binaryData", obj.binaryData)):
        _keys(keys, name, found)
    for key in sorted(set(obj.data) & set(obj.binaryData)):
        found.invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
    size = sum(len(text.encode()) for text in obj.data.values()) + sum(map(len, obj.binaryData.values()))
    if size > MAX_DATA:
        found.too_long("data", MAX_DATA)
    if old is not None and old.immutable:
        _unchanged(obj, old, ("data", "binaryData"), found)
    return found


def secret(obj: config_pb2.Secret, old: config_pb2.Secret | None, _context: AdmissionContext) -> list[FieldError]:
    """A secret: the keys that its type needs. Values are never shown."""
    found = Problems()
    _keys(obj.data, "data", found)
    if sum(map(len, obj.data.values())) > MAX_DATA:
        found.too_long("data", MAX_DATA)
    for key in _REQUIRED_KEYS.get(obj.type, ()):
        if key not in obj.data:
            found.required(f"data[{key}]")
    if obj.type in ("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg"):
        _docker_config(obj, found)
    if obj.type == "kubernetes.io/basic-auth" and not {"username", "password"} & set(obj.data):
        found.required("data[username]")
    if old is not None:
        found.immutable("type", obj.type, old.type)
        if old.immutable:
            _unchanged(obj, old, ("data",), found)
    return found


def _docker_config(obj: config_pb2.Secret, found: Problems) -> None:
    for key in _REQUIRED_KEYS[obj.type]:
        try:
            json.loads(obj.data.get(key, b"{}"))
        except (ValueError, RecursionError):
            found.add(f"data[{key}]", "Invalid value: <secret contents redacted>: must be JSON")


def _keys(values: Mapping[str, object], path: str, found: Problems) -> None:
    for key in sorted(values):
        for detail in names.config_key(key):
            found.invalid(f"{path}[{key}]", key, detail)


def _unchanged(
    obj: config_pb2.ConfigMap | config_pb2.Secret,
    old: config_pb2.ConfigMap | config_pb2.Secret,
    data: tuple[str, ...],
    found: Problems,
) -> None:
    if not obj.immutable:
        found.forbidden("immutable", _FIXED)
    for name in data:
        if getattr(obj, name) != getattr(old, name):
            found.forbidden(name, _FIXED)
