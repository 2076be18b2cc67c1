"""What files a config map, secret, downward API or projected volume holds. Pure.

A payload is path -> File. Fails with ValueError in the kubelet's words; the caller says which volume it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nodeagent.runtime.fields import PodFacts, container_of, field_value, resource_value
from podplane.v1.pod_pb2 import Pod
from podplane.v1.volume_pb2 import DownwardAPIVolumeFile, KeyToPath, Volume, VolumeProjection

Objects = Mapping[tuple[str, str, str], Any]
"""(kind, namespace, name) -> ConfigMap or Secret."""
DEFAULT_MODE = 0o644
_KINDS: tuple[Literal["configMap", "secret", "downwardAPI", "projected"], ...] = (
    "configMap", "secret", "downwardAPI", "projected",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class File:
    """One file of a volume."""

    data: bytes
    mode: int


Payload = dict[str, File]


def check_path(path: str) -> str:
    """A path inside a volume. ValueError where it would leave it or touch what the writer needs."""
    parts = path.split("/")
    if not path or path.startswith("/") or ".." in parts or parts[0].startswith(".."):
        raise ValueError(f"invalid path {path!r}: must be relative, without '..'")
    return path


def is_payload(volume: Volume) -> bool:
    """Whether a volume's files are written by the agent: it follows what they are made of, and no container writes."""
    return any(volume.HasField(kind) for kind in _KINDS)


def of_volume(pod: Pod, volume: Volume, objects: Objects, facts: PodFacts) -> Payload | None:
    """The files of a volume; None where it is of another kind."""
    maker = _Maker(pod, objects, facts)
    if volume.HasField("configMap"):
        source = volume.configMap
        return maker.keys("ConfigMap", source.name, source.items, source.optional, _mode(source))
    if volume.HasField("secret"):
        secret = volume.secret
        return maker.keys("Secret", secret.secretName, secret.items, secret.optional, _mode(secret))
    if volume.HasField("downwardAPI"):
        return maker.fields(volume.downwardAPI.items, _mode(volume.downwardAPI))
    if volume.HasField("projected"):
        made: Payload = {}
        for projection in volume.projected.sources:
            made.update(maker.projection(projection, _mode(volume.projected)))
        return made
    return None


def _mode(source: Any) -> int:
    return int(source.defaultMode) if source.HasField("defaultMode") else DEFAULT_MODE


class _Maker:
    def __init__(self, pod: Pod, objects: Objects, facts: PodFacts) -> None:
        self._pod, self._objects, self._facts = pod, objects, facts

    def projection(self, source: VolumeProjection, mode: int) -> Payload:
        if source.HasField("configMap"):
            asked = source.configMap
            return self.keys("ConfigMap", asked.name, asked.items, asked.optional, mode)
        if source.HasField("secret"):
            secret = source.secret
            return self.keys("Secret", secret.name, secret.items, secret.optional, mode)
        if source.HasField("downwardAPI"):
            return self.fields(source.downwardAPI.items, mode)
        raise ValueError("projected service account tokens and trust bundles are not supported")

    def keys(self, kind: str, name: str, items: Iterable[KeyToPath], optional: bool, mode: int) -> Payload:
        found = self._objects.get((kind, self._pod.metadata.namespace, name))
        if found is None:
            if optional:
                return {}
            raise ValueError(f'{kind.lower()} "{name}" not found')
        data = {key: value.encode() if isinstance(value, str) else value for key, value in found.data.items()}
        if kind == "ConfigMap":
            data.update(found.binaryData)
        chosen = list(items)
        if not chosen:
            return {check_path(key): File(value, mode) for key, value in data.items()}
        return self._chosen(kind, data, chosen, optional, mode)

    def _chosen(
        self, kind: str, data: Mapping[str, bytes], items: Iterable[KeyToPath], optional: bool, mode: int
    ) -> Payload:
        made: Payload = {}
        for item in items:
            if item.key in data:
                made[check_path(item.path)] = File(data[item.key], item.mode if item.HasField("mode") else mode)
            elif not optional:
                word = "config" if kind == "ConfigMap" else "secret"
                raise ValueError(f"references non-existent {word} key: {item.key}")
        return made

    def fields(self, items: Iterable[DownwardAPIVolumeFile], mode: int) -> Payload:
        made: Payload = {}
        for item in items:
            if item.HasField("fieldRef"):
                text = field_value(self._pod, item.fieldRef.fieldPath, self._facts)
            else:
                container = container_of(self._pod, item.resourceFieldRef.containerName)
                text = resource_value(container, item.resourceFieldRef, self._facts)
            made[check_path(item.path)] = File(text.encode(), item.mode if item.HasField("mode") else mode)
        return made
