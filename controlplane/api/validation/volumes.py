"""Volumes of a pod and where containers mount them. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable
from typing import Any

from controlplane.api.validation import downward
from controlplane.api.validation.problems import Problems
from podplane import names, quantity
from podplane.v1 import container_pb2, volume_pb2

_HOST_PATH_TYPES = (
    "", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice",
)  # fmt: skip
_MAX_MODE = 0o777
_PROJECTIONS = ("secret", "downwardAPI", "configMap", "serviceAccountToken", "clusterTrustBundle")


def volumes(listed: Iterable[volume_pb2.Volume], path: str, found: Problems) -> set[str]:
    """Check every volume; give the names that containers may mount."""
    seen: set[str] = set()
    for index, volume in enumerate(listed):
        at = f"{path}[{index}]"
        found.syntax(f"{at}.name", volume.name, names.dns_label)
        found.unique(f"{at}.name", volume.name, seen)
        _sources(volume, at, found)
    return seen


def _sources(volume: volume_pb2.Volume, path: str, found: Problems) -> None:
    present = [field.name for field, _ in volume.ListFields() if field.name != "name"]
    if not present:
        found.required(path, "must specify a volume type")
    for name in present[1:]:
        found.forbidden(f"{path}.{name}", "may not specify more than 1 volume type")
    for name in present:
        check = _CHECKS.get(name)
        if check is not None:
            check(getattr(volume, name), f"{path}.{name}", found)


def _host_path(source: volume_pb2.HostPathVolumeSource, path: str, found: Problems) -> None:
    at = f"{path}.path"
    if not source.path:
        found.required(at)
    elif not source.path.startswith("/"):
        found.invalid(at, source.path, "must be an absolute path")
    elif ".." in source.path.split("/"):
        found.invalid(at, source.path, "must not contain '..'")
    elif "\0" in source.path:
        found.invalid(at, source.path, "must not contain NUL")
    if source.type not in _HOST_PATH_TYPES:
        found.unsupported(f"{path}.type", source.type, _HOST_PATH_TYPES)


def _empty_dir(source: volume_pb2.EmptyDirVolumeSource, path: str, found: Problems) -> None:
    if source.medium not in ("", "Memory"):
        found.unsupported(f"{path}.medium", source.medium, ("", "Memory"))
    if source.HasField("sizeLimit"):
        try:
            if quantity.parse(source.sizeLimit) < 0:
                found.invalid(f"{path}.sizeLimit", source.sizeLimit, "must be greater than or equal to 0")
        except ValueError as error:
            found.invalid(f"{path}.sizeLimit", source.sizeLimit, str(error))


def _nfs(source: volume_pb2.NFSVolumeSource, path: str, found: Problems) -> None:
    if not source.server:
        found.required(f"{path}.server")
    elif source.server.startswith("-") or any(letter.isspace() or letter in "/\0" for letter in source.server):
        found.invalid(f"{path}.server", source.server, "must be a host name or an IP address")
    if not source.path:
        found.required(f"{path}.path")
    elif not source.path.startswith("/"):
        found.invalid(f"{path}.path", source.path, "must be an absolute path")
    elif "\0" in source.path:
        found.invalid(f"{path}.path", source.path, "must not contain NUL")


def _secret(source: volume_pb2.SecretVolumeSource, path: str, found: Problems) -> None:
    if not source.secretName:
        found.required(f"{path}.secretName")
    _mode(source, "defaultMode", path, found)
    _items(source.items, path, found)


def _config_map(source: volume_pb2.ConfigMapVolumeSource, path: str, found: Problems) -> None:
    if not source.name:
        found.required(f"{path}.name")
    _mode(source, "defaultMode", path, found)
    _items(source.items, path, found)


def _downward(source: volume_pb2.DownwardAPIVolumeSource, path: str, found: Problems) -> None:
    _mode(source, "defaultMode", path, found)
    _downward_items(source.items, path, found)


def _downward_items(items: Iterable[volume_pb2.DownwardAPIVolumeFile], path: str, found: Problems) -> None:
    for index, item in enumerate(items):
        at = f"{path}.items[{index}]"
        _relative(item.path, f"{at}.path", found)
        _mode(item, "mode", at, found)
        if item.HasField("fieldRef") == item.HasField("resourceFieldRef"):
            found.required(at, "one of fieldRef and resourceFieldRef is required")
        elif item.HasField("fieldRef"):
            downward.field(item.fieldRef, f"{at}.fieldRef", found, allowed=downward.FILES)
        else:
            downward.resource(item.resourceFieldRef, f"{at}.resourceFieldRef", found, volume=True)


def _projected(source: volume_pb2.ProjectedVolumeSource, path: str, found: Problems) -> None:
    _mode(source, "defaultMode", path, found)
    taken: set[str] = set()
    for index, projection in enumerate(source.sources):
        at = f"{path}.sources[{index}]"
        chosen = [name for name in _PROJECTIONS if projection.HasField(name)]  # type: ignore[arg-type]
        if len(chosen) != 1:
            found.required(at, f"exactly one of {', '.join(_PROJECTIONS)} is required")
        for name in ("secret", "configMap"):
            if name in chosen:
                if not getattr(projection, name).name:
                    found.required(f"{at}.{name}.name")
                _items(getattr(projection, name).items, f"{at}.{name}", found)
        _downward_items(projection.downwardAPI.items, f"{at}.downwardAPI", found)
        _no_conflict(projection, at, taken, found)


def _no_conflict(projection: volume_pb2.VolumeProjection, path: str, taken: set[str], found: Problems) -> None:
    """What sources name themselves must differ; of whole objects the keys are not known yet, and the last one wins."""
    for name in ("secret", "downwardAPI", "configMap"):
        for index, item in enumerate(getattr(projection, name).items):
            if item.path and item.path in taken:
                found.invalid(f"{path}.{name}.items[{index}].path", item.path, "conflicting duplicate paths")
            taken.add(item.path)


_CHECKS: dict[str, Any] = {
    "hostPath": _host_path,
    "emptyDir": _empty_dir,
    "nfs": _nfs,
    "secret": _secret,
    "configMap": _config_map,
    "downwardAPI": _downward,
    "projected": _projected,
}


def _items(items: Iterable[volume_pb2.KeyToPath], path: str, found: Problems) -> None:
    for index, item in enumerate(items):
        at = f"{path}.items[{index}]"
        found.syntax(f"{at}.key", item.key, names.config_key)
        _relative(item.path, f"{at}.path", found)
        _mode(item, "mode", at, found)


def _mode(source: Any, name: str, path: str, found: Problems) -> None:
    if source.HasField(name) and not 0 <= getattr(source, name) <= _MAX_MODE:
        found.invalid(
            f"{path}.{name}", getattr(source, name), "must be a number between 0 and 0777 (octal), both inclusive"
        )


def _relative(value: str, path: str, found: Problems) -> None:
    """A file of a volume that the agent writes: what begins with '..' is the writer's own."""
    if not value:
        found.required(path)
    elif value.startswith("..") and ".." not in value.split("/"):
        found.invalid(path, value, "must not start with '..'")
    else:
        _descending(value, path, found)


def _descending(value: str, path: str, found: Problems) -> None:
    if value.startswith("/"):
        found.invalid(path, value, "must be a relative path")
    elif ".." in value.split("/"):
        found.invalid(path, value, "must not contain '..'")
    elif "\0" in value:
        found.invalid(path, value, "must not contain NUL")


def mounts(container: container_pb2.Container, path: str, known: Collection[str], found: Problems) -> None:
    """Mounts name volumes that exist, at paths that differ."""
    seen: set[str] = set()
    for index, mount in enumerate(container.volumeMounts):
        at = f"{path}.volumeMounts[{index}]"
        if not mount.name:
            found.required(f"{at}.name")
        elif mount.name not in known:
            found.not_found(f"{at}.name", mount.name)
        _mount_path(mount.mountPath, f"{at}.mountPath", seen, found)
        _descending(mount.subPath, f"{at}.subPath", found)
        _descending(mount.subPathExpr, f"{at}.subPathExpr", found)
        if mount.subPath and mount.subPathExpr:
            found.invalid(f"{at}.subPathExpr", mount.subPathExpr, "subPathExpr and subPath are mutually exclusive")
        found.one_of(
            f"{at}.mountPropagation",
            mount.mountPropagation,
            ("None", "HostToContainer", "Bidirectional"),
            required=False,
        )
        if mount.mountPropagation == "Bidirectional" and not container.securityContext.privileged:
            words = "Bidirectional mount propagation is available only to privileged containers"
            found.forbidden(f"{at}.mountPropagation", words)


def _mount_path(value: str, path: str, seen: set[str], found: Problems) -> None:
    if not value:
        found.required(path)
        return
    if "\0" in value:
        found.invalid(path, value, "must not contain NUL")
    if posixpath.normpath("/" + value) in seen:
        found.invalid(path, value, "must be unique")
    seen.add(posixpath.normpath("/" + value))
