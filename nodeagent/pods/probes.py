"""What is probed, when, and what a run of results means. Pure; prober.py asks the containers.

    startup ─► (passed) ─► liveness, readiness        failureThreshold in a row: failed; successThreshold: passed

A startup probe holds the others back. Counts begin anew with every instance and every agent: what was judged before
is in the pod's state, and stands until a new run of results says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

from nodeagent.pods.state import RUNNING, ContainerState, PodState
from podplane.v1.container_pb2 import Container, Probe

STARTUP = "startup"
LIVENESS = "liveness"
READINESS = "readiness"

Key = tuple[str, int, str]
"""Container, attempt, which of its probes."""


def wanted(state: PodState) -> dict[Key, Probe]:
    """Every probe that is to be made now. A pod that is ending is asked only whether it is ready, as the kubelet."""
    found: dict[Key, Probe] = {}
    ending = bool(state.stopping or state.final or state.deleted)
    specs = (*state.pod.spec.initContainers, *state.pod.spec.containers)
    for spec, container in zip(specs, state.containers, strict=False):
        if container.stage != RUNNING or (container.init and not container.sidecar):
            continue
        for kind, probe in _of(spec, container):
            if kind == READINESS or not (ending or container.ending):
                found[container.name, container.attempt, kind] = probe
    return found


def _of(spec: Container, container: ContainerState) -> list[tuple[str, Probe]]:
    if spec.HasField("startupProbe") and not container.startup_passed:
        return [(STARTUP, spec.startupProbe)]
    found = []
    if spec.HasField("livenessProbe"):
        found.append((LIVENESS, spec.livenessProbe))
    if spec.HasField("readinessProbe"):
        found.append((READINESS, spec.readinessProbe))
    return found


@dataclass(slots=True)
class Run:
    """Equal results in a row of one probe (Kubernetes: successThreshold, failureThreshold)."""

    probe: Probe
    last: bool | None = None
    length: int = 0

    def judge(self, passed: bool) -> bool | None:
        """Take a result in; the verdict, None while there are too few of one kind."""
        self.length = self.length + 1 if passed is self.last else 1
        self.last = passed
        needed = (self.probe.successThreshold or 1) if passed else (self.probe.failureThreshold or 3)
        return passed if self.length >= needed else None


def period(probe: Probe) -> float:
    """Seconds from one probe to the next."""
    return float(probe.periodSeconds or 10)


def timeout(probe: Probe) -> float:
    """Seconds after which a probe has failed."""
    return float(probe.timeoutSeconds or 1)


def first_in(probe: Probe, started_at: float, now: float) -> float:
    """Seconds until the first probe: initialDelaySeconds count from the container's start, whatever the clock did."""
    delay = float(probe.initialDelaySeconds)
    return min(max(started_at + delay - now, 0.0), delay)


def doom(state: PodState, name: str, kind: str) -> str:
    """The words of the event Killing."""
    words = f"Container {name} failed {kind} probe"
    stays = state.restart_policy == "Never" and not state.container(name).sidecar
    return words if stays else f"{words}, will be restarted"


def grace(state: PodState, name: str, kind: str) -> float:
    """Seconds that a container has to end after this probe failed; the probe's own word goes before the pod's."""
    for spec in (*state.pod.spec.initContainers, *state.pod.spec.containers):
        if spec.name == name:
            probe = spec.startupProbe if kind == STARTUP else spec.livenessProbe
            if probe.HasField("terminationGracePeriodSeconds"):
                return float(probe.terminationGracePeriodSeconds)
    return float(state.grace)
