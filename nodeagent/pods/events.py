"""What happened to a pod, in the past tense. Pure data; `at` is when, in seconds since the epoch.

The machine takes nothing else in. Timers only post TimePassed: what is due is decided from the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nodeagent.types import ContainerFound
from podplane.v1.pod_pb2 import Pod


@dataclass(frozen=True, slots=True)
class PodAdmitted:
    """With an address, where the node has one to give at once: what is written down first says it, too."""

    at: float
    address: str = ""


@dataclass(frozen=True, slots=True)
class PodRefused:
    """The node cannot run it: Failed with this reason (OutOfcpu ...)."""

    at: float
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class SpecChanged:
    at: float
    pod: Pod


@dataclass(frozen=True, slots=True)
class DeletionRequested:
    """Stop within `grace` seconds. A later one may shorten the grace, never lengthen it.

    `hold`: for how many seconds at most, and half the grace, SIGTERM waits for PodWithdrawn.
    """

    at: float
    grace: float
    hold: float = 0.0


@dataclass(frozen=True, slots=True)
class PodWithdrawn:
    """No node's service rules lead to the pod any more: SIGTERM loses no request. May come before the deletion."""

    at: float


@dataclass(frozen=True, slots=True)
class PodEvicted:
    """The node can bear the pod no longer (pressure, a limit of local storage): it is stopped and fails."""

    at: float
    message: str
    grace: float = 1.0
    """Seconds between SIGTERM and SIGKILL: the kubelet's for an eviction that cannot wait."""


@dataclass(frozen=True, slots=True)
class TimePassed:
    at: float


@dataclass(frozen=True, slots=True)
class ClockStepped:
    """The wall clock was set, by so many seconds; `at` is after it."""

    at: float
    by: float


@dataclass(frozen=True, slots=True)
class ObjectsChanged:
    """A config map or secret of the pod changed: what waits for one is tried now."""

    at: float


@dataclass(frozen=True, slots=True)
class AddressTaken:
    at: float
    address: str


@dataclass(frozen=True, slots=True)
class SandboxReady:
    at: float
    attempt: int


@dataclass(frozen=True, slots=True)
class SandboxFailed:
    at: float
    attempt: int
    message: str


@dataclass(frozen=True, slots=True)
class SandboxRemoved:
    at: float
    attempt: int


@dataclass(frozen=True, slots=True)
class SandboxLost:
    """The namespaces or the network of the pod are gone: everything in it starts anew."""

    at: float
    attempt: int


@dataclass(frozen=True, slots=True)
class VolumesReady:
    at: float


@dataclass(frozen=True, slots=True)
class VolumesFailed:
    at: float
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class VolumesRemoved:
    at: float


@dataclass(frozen=True, slots=True)
class ImagePulling:
    """How far a pull is; told now and then."""

    at: float
    container: str
    message: str


@dataclass(frozen=True, slots=True)
class ImageReady:
    at: float
    container: str
    id: str
    digest: str
    """What imageID shows: repository@digest."""
    name: str
    """The reference in full."""
    words: str
    """The message of the event Pulled."""


@dataclass(frozen=True, slots=True)
class ImageFailed:
    at: float
    container: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ContainerCreated:
    at: float
    container: str
    attempt: int
    pid: int


@dataclass(frozen=True, slots=True)
class ContainerRefused:
    """Creating failed; nothing runs. reason: CreateContainerConfigError, CreateContainerError, RunContainerError."""

    at: float
    container: str
    attempt: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ContainerStarted:
    at: float
    container: str
    attempt: int


@dataclass(frozen=True, slots=True)
class ContainerStartFailed:
    at: float
    container: str
    attempt: int
    message: str


@dataclass(frozen=True, slots=True)
class HookEnded:
    """A hook is over. hook: postStart or preStop. failure: empty where it succeeded; message: with what it said."""

    at: float
    container: str
    attempt: int
    hook: str
    failure: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class ContainerExited:
    """code None: nobody can know it (ContainerStatusUnknown, 137)."""

    at: float
    container: str
    attempt: int
    code: int | None
    oom: bool = False
    finished_at: float = 0.0
    message: str = ""


@dataclass(frozen=True, slots=True)
class ProbePassed:
    """Often enough in a row. probe: startup or readiness."""

    at: float
    container: str
    attempt: int
    probe: str


@dataclass(frozen=True, slots=True)
class ProbeFailed:
    """Once. `enough`: it was the failureThreshold-th in a row. probe: startup, liveness or readiness."""

    at: float
    container: str
    attempt: int
    probe: str
    message: str
    enough: bool


@dataclass(frozen=True, slots=True)
class ContainerRemoved:
    at: float
    container: str
    attempt: int


@dataclass(frozen=True, slots=True)
class CleanupFailed:
    """Removing failed and is tried again. part: sandbox, volumes, or the name of a container."""

    at: float
    part: str
    container: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class AgentRestarted:
    """A new agent process took the pod over. `rebooted`: everything that ends with the boot has ended."""

    at: float
    rebooted: bool
    sandbox: bool
    instances: Mapping[tuple[str, int], ContainerFound] = field(default_factory=dict)


Event = (
    PodAdmitted
    | PodRefused
    | SpecChanged
    | DeletionRequested
    | PodWithdrawn
    | PodEvicted
    | TimePassed
    | ClockStepped
    | ObjectsChanged
    | AddressTaken
    | SandboxReady
    | SandboxFailed
    | SandboxRemoved
    | SandboxLost
    | VolumesReady
    | VolumesFailed
    | VolumesRemoved
    | ImagePulling
    | ImageReady
    | ImageFailed
    | ContainerCreated
    | ContainerRefused
    | ContainerStarted
    | ContainerStartFailed
    | HookEnded
    | ContainerExited
    | ProbePassed
    | ProbeFailed
    | ContainerRemoved
    | CleanupFailed
    | AgentRestarted
)
