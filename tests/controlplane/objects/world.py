"""Objects over a real store, with admission that lets through what a test wants, and a clock that the test sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from controlplane.api.admission_context import AdmissionContext
from controlplane.objects import Objects
from controlplane.store.cache import WatchCache
from controlplane.store.sqlite import SqliteLog
from podplane.errors import FieldError
from podplane.v1 import config_pb2, namespace_pb2, pod_pb2

NOW = 1_800_000_000


@dataclass
class Gate:
    """An Admission: `default` completes objects, `judge` finds fault with them and `judge_status` with a status.

    `forbid` names a policy.
    """

    default: Callable[[Any, Any, AdmissionContext], None] = lambda obj, old, context: None
    judge: Callable[[Any, Any, AdmissionContext], list[FieldError]] = lambda obj, old, context: []
    judge_status: Callable[[Any, Any], list[FieldError]] = lambda obj, old: []
    forbid: Callable[[Any, Any, AdmissionContext], str] = lambda obj, old, context: ""

    def mutate(self, obj: Any, old: Any, context: AdmissionContext) -> None:
        self.default(obj, old, context)

    def validate(self, obj: Any, old: Any, context: AdmissionContext) -> list[FieldError]:
        return self.judge(obj, old, context)

    def validate_status(self, obj: Any, old: Any) -> list[FieldError]:
        return self.judge_status(obj, old)

    def forbids(self, obj: Any, old: Any, context: AdmissionContext) -> str:
        return self.forbid(obj, old, context)


@dataclass
class World:
    """A store in a directory, open, with the namespace `default`."""

    log: SqliteLog
    cache: WatchCache
    gate: Gate = field(default_factory=Gate)
    now: float = NOW + 0.7

    def __post_init__(self) -> None:
        self.objects = Objects(self.log, self.cache, self.gate, lambda: self.now)


def namespace(name: str) -> namespace_pb2.Namespace:
    made = namespace_pb2.Namespace()
    made.metadata.name = name
    return made


def pod(name: str = "web", image: str = "host") -> pod_pb2.Pod:
    made = pod_pb2.Pod()
    made.metadata.name, made.metadata.namespace = name, "default"
    made.spec.containers.add(name="main", image=image)
    return made


def config_map(name: str = "settings", **data: str) -> config_pb2.ConfigMap:
    made = config_pb2.ConfigMap(data=data)
    made.metadata.name, made.metadata.namespace = name, "default"
    return made
