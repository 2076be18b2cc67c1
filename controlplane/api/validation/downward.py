"""The downward API: which fields of a pod and which resources of its containers may be asked for. Pure."""

from __future__ import annotations

from controlplane.api.validation.problems import Problems
from podplane.v1 import reference_pb2

FILES = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
"""Fields that volumes may show: those that a file can follow, or that never change."""
VARIABLES = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
    "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip
RESOURCES = tuple(
    f"{part}.{name}" for part in ("limits", "requests") for name in ("cpu", "ephemeral-storage", "memory")
)
_CPU_UNITS = ("1m", "1")
_BYTE_UNITS = ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")


def field(source: reference_pb2.ObjectFieldSelector, path: str, found: Problems, *, allowed: tuple[str, ...]) -> None:
    """A fieldRef: one of the allowed paths, or one label or annotation."""
    value, at = source.fieldPath, f"{path}.fieldPath"
    if not value:
        found.required(at)
    elif value not in allowed and not _of_map(value):
        found.unsupported(at, value, allowed)


def _of_map(value: str) -> bool:
    return value.startswith(("metadata.labels['", "metadata.annotations['")) and value.endswith("']")


def resource(source: reference_pb2.ResourceFieldSelector, path: str, found: Problems, *, volume: bool = False) -> None:
    """A resourceFieldRef; in a volume it must name the container."""
    if volume and not source.containerName:
        found.required(f"{path}.containerName")
    found.one_of(f"{path}.resource", source.resource, RESOURCES)
    of_cpu = source.resource.endswith(".cpu")
    units = _CPU_UNITS if of_cpu else _BYTE_UNITS
    if source.resource in RESOURCES and source.divisor not in ("", "0", *units):
        name = source.resource.partition(".")[2]
        words = f"only divisor's values {', '.join(units)} are supported with the {name} resource"
        found.invalid(f"{path}.divisor", source.divisor, words)
