"""What a diagnosis is made of. Pure values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from podplane.v1 import diagnosis_pb2, endpointslice_pb2, node_pb2, pod_pb2, service_pb2

ERROR, WARNING = "Error", "Warning"
Finding = diagnosis_pb2.DiagnosisFinding


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of one node: its rules as it has just told them, or why it did not."""

    node: node_pb2.Node
    connected: bool
    programmed: int
    """The revision that its rules express, as it last said; 0: it never did."""
    seen: float | None = None
    """When it was heard of last, seconds since the epoch."""
    rules: diagnosis_pb2.ServiceRules | None = None
    silence: str = ""

    @property
    def name(self) -> str:
        return self.node.metadata.name


@dataclass(frozen=True, slots=True)
class Facts:
    """All at one moment. pods: of the service's namespace; slices: of the service."""

    service: service_pb2.Service
    revision: int
    """Rules of this revision or a later one say what service and slices say."""
    pods: Sequence[pod_pb2.Pod] = ()
    slices: Sequence[endpointslice_pb2.EndpointSlice] = ()
    answers: Sequence[Answer] = ()
    sender: pod_pb2.Pod | None = None
    """The pod that a packet is followed from."""

    @property
    def key(self) -> str:
        return f"{self.service.metadata.namespace}/{self.service.metadata.name}"

    @property
    def is_headless(self) -> bool:
        return self.service.spec.clusterIP == "None"

    @property
    def has_rules(self) -> bool:
        """Whether nodes make rules of it."""
        return self.service.spec.type != "ExternalName" and not self.is_headless


def finding(type: str, reason: str, message: str, fix: str, node: str = "") -> Finding:
    made = Finding(type=type, reason=reason, message=message, fix=fix)
    if node:
        made.node = node
    return made


def some(names: Sequence[str], most: int = 5) -> str:
    """A list for people, cut."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def counted(number: int, what: str) -> str:
    """`1 node`, `3 nodes`."""
    return f"{number} {what}{'' if number == 1 else 's'}"
