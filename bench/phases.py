"""Where a pod's start went, as a watcher of the API sees it: each phase ends when its event arrives.

Times are the bench's own clock: what counts is when a watcher learns of it, not when it was.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from bench.results import median
from podplane.v1 import pod_pb2

ORDER = ("API", "schedule", "bind delivered", "sandbox and volumes", "init", "app", "status seen")


class Phases:
    """Moments of each pod, and the medians of what lies between them, in milliseconds."""

    def __init__(self) -> None:
        self._begun: dict[str, float] = {}
        self._accepted: dict[str, float] = {}
        self.medians: dict[str, float] = {}

    def begin(self, name: str) -> None:
        self._begun[name] = time.perf_counter()

    def accepted(self, name: str) -> None:
        self._accepted[name] = time.perf_counter()

    def learn(self, events: Sequence[tuple[float, Any]]) -> None:
        """Take the timed events of a watch and work out the medians over the pods that were started alone."""
        spans: dict[str, list[float]] = {phase: [] for phase in ORDER}
        for name, begun in self._begun.items():
            if not name.startswith("single-"):
                continue
            moments = [begun, self._accepted[name], *_moments(name, events)]
            for phase, (start, end) in zip(ORDER, pairwise(moments), strict=False):
                spans[phase].append(max(0.0, end - start) * 1000)
        self.medians = {phase: median(values) for phase, values in spans.items() if values}


def _moments(name: str, events: Sequence[tuple[float, Any]]) -> list[float]:
    """Arrival of: bound, first word of the node, first init container begun, inits done, app begun, ready."""
    tests = (_bound, _heard, _init_begun, _inits_done, _app_begun, _ready)
    own = [(moment, event.object) for moment, event in events if event.object.metadata.name == name]
    moments: list[float] = []
    for test in tests:
        moments.append(next((moment for moment, found in own if test(found)), moments[-1] if moments else own[0][0]))
    return moments


def _bound(found: pod_pb2.Pod) -> bool:
    return bool(found.spec.nodeName)


def _heard(found: pod_pb2.Pod) -> bool:
    return bool(found.status.startTime.seconds)


def _init_begun(found: pod_pb2.Pod) -> bool:
    return any(status.state.HasField("running") or status.state.HasField("terminated")
               for status in found.status.initContainerStatuses)  # fmt: skip


def _inits_done(found: pod_pb2.Pod) -> bool:
    return any(condition.type == "Initialized" and condition.status == "True" for condition in found.status.conditions)


def _app_begun(found: pod_pb2.Pod) -> bool:
    return any(status.state.HasField("running") for status in found.status.containerStatuses)


def _ready(found: pod_pb2.Pod) -> bool:
    return any(condition.type == "Ready" and condition.status == "True" for condition in found.status.conditions)
