"""The downward API: fields of the pod and resources of its containers as text. Pure.

Raises ValueError for a path that Kubernetes does not support there; the API refuses those before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from podplane import quantity
from podplane.v1.container_pb2 import Container
from podplane.v1.pod_pb2 import Pod
from podplane.v1.reference_pb2 import ResourceFieldSelector

_ESCAPES = {
    '"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
}  # fmt: skip
_KEYED = re.compile(r"metadata\.(labels|annotations)\['(.*)'\]")


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What is true of a pod on this node. `allocatable`: the node's, as quantities, where a limit is not set."""

    node_name: str
    host_ip: str
    pod_ip: str
    allocatable: Mapping[str, str] = field(default_factory=dict)


def _lines(values: Mapping[str, str]) -> str:
    return "\n".join(f"{key}={_quoted(values[key])}" for key in sorted(values))


def _quoted(text: str) -> str:
    """A text as Go's %q writes it, which is what programs that read these files parse."""
    return '"' + "".join(_escaped(each) for each in text) + '"'


def _escaped(each: str) -> str:
    if each in _ESCAPES:
        return _ESCAPES[each]
    if each.isprintable():
        return each
    number = ord(each)
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def field_value(pod: Pod, path: str, facts: PodFacts) -> str:
    """The value of a fieldRef."""
    meta = pod.metadata
    if (keyed := _KEYED.fullmatch(path)) is not None:
        return (meta.labels if keyed[1] == "labels" else meta.annotations).get(keyed[2], "")
    simple = {
        "metadata.name": meta.name,
        "metadata.namespace": meta.namespace,
        "metadata.uid": meta.uid,
        "spec.nodeName": facts.node_name,
        "spec.serviceAccountName": pod.spec.serviceAccountName or "default",
        "status.hostIP": facts.host_ip,
        "status.hostIPs": facts.host_ip,
        "status.podIP": facts.pod_ip,
        "status.podIPs": facts.pod_ip,
    }
    if path in simple:
        return simple[path]
    if path == "metadata.labels":
        return _lines(meta.labels)
    if path == "metadata.annotations":
        return _lines(meta.annotations)
    raise ValueError(f"unsupported fieldPath: {path}")


def resource_value(container: Container, asked: ResourceFieldSelector, facts: PodFacts) -> str:
    """The value of a resourceFieldRef in units of its divisor, rounded up."""
    kind, _, name = asked.resource.partition(".")
    if kind not in ("limits", "requests") or not name:
        raise ValueError(f"unsupported container resource: {asked.resource}")
    limits, requests = container.resources.limits, container.resources.requests
    held = limits if kind == "limits" else {**limits, **requests}
    text = held.get(name) or (facts.allocatable.get(name, "0") if kind == "limits" else "0")
    divisor = quantity.parse(asked.divisor or "1")
    return str(-(-quantity.parse(text) // (divisor or 1)))


def container_of(pod: Pod, name: str) -> Container:
    """The container of a pod by name. ValueError where there is none."""
    for container in (*pod.spec.containers, *pod.spec.initContainers):
        if container.name == name:
            return container
    raise ValueError(f"container {name} not found")
