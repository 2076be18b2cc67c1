"""What shall be done to a pod, in the imperative. Pure data; nodeagent/pods/performer.py does it.

Every effect is named by pod uid and attempt and is idempotent: after a crash it is done again and finds it done.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TakeAddress:
    """Reserve an address of the node's pod CIDR."""


@dataclass(frozen=True, slots=True)
class CreateSandbox:
    attempt: int
    address: str


@dataclass(frozen=True, slots=True)
class RemoveSandbox:
    attempt: int


@dataclass(frozen=True, slots=True)
class ReleaseAddress:
    address: str


@dataclass(frozen=True, slots=True)
class PrepareVolumes:
    """Make and fill the pod's volumes."""


@dataclass(frozen=True, slots=True)
class RemoveVolumes:
    """Remove them with what is in them."""


@dataclass(frozen=True, slots=True)
class PullImage:
    container: str
    image: str


@dataclass(frozen=True, slots=True)
class CancelPull:
    container: str


@dataclass(frozen=True, slots=True)
class CreateContainer:
    container: str
    attempt: int
    image_id: str


@dataclass(frozen=True, slots=True)
class StartContainer:
    container: str
    attempt: int


@dataclass(frozen=True, slots=True)
class RunHook:
    """A hook of the running instance: postStart or preStop, which began at `since`. Done again where an agent died."""

    container: str
    attempt: int
    hook: str
    since: float


@dataclass(frozen=True, slots=True)
class CancelHook:
    container: str


@dataclass(frozen=True, slots=True)
class SignalContainer:
    """The image's stop signal, SIGTERM where it names none, to the container's first process."""

    container: str
    attempt: int


@dataclass(frozen=True, slots=True)
class KillContainer:
    """SIGKILL to everything in the container."""

    container: str
    attempt: int


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    container: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Tell:
    """A Kubernetes Event about the pod. kind: Normal or Warning."""

    kind: str
    reason: str
    message: str
    container: str = ""
    init: bool = False


@dataclass(frozen=True, slots=True)
class ReportGone:
    """Nothing of the pod is left on the node: say so, then forget it."""


Effect = (
    TakeAddress
    | CreateSandbox
    | RemoveSandbox
    | ReleaseAddress
    | PrepareVolumes
    | RemoveVolumes
    | PullImage
    | CancelPull
    | CreateContainer
    | StartContainer
    | RunHook
    | CancelHook
    | SignalContainer
    | KillContainer
    | RemoveContainer
    | Tell
    | ReportGone
)
