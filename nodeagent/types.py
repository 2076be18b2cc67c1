"""The words that the parts of the agent share: what a sandbox and a container are asked for, and what they are.

Pure: dataclasses only. A container instance is named `<pod uid>_<container name>_<attempt>`; a sandbox
`<pod uid>_<attempt>`: every effect is named by uid and attempt, so that doing it again finds it done (D11).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SandboxRequest:
    """A pod's shared namespaces. `address` is the pod's IPv4 address; None with host_network."""

    pod_uid: str
    attempt: int
    hostname: str
    address: str | None
    host_network: bool = False
    host_ipc: bool = False
    pause_cgroup: str = ""
    """Where the pause process is to be; empty: the containers do not share their processes."""
    sysctls: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.pod_uid}_{self.attempt}"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox that stands: pinned namespace files (None: the node's own), and the pod's shared memory."""

    pod_uid: str
    attempt: int
    address: str | None
    net: Path | None
    uts: Path | None
    ipc: Path | None
    shm: Path | None
    pid: Path | None = None
    """None: each container has one of its own, or the node's."""

    @property
    def id(self) -> str:
        return f"{self.pod_uid}_{self.attempt}"


@dataclass(frozen=True, slots=True)
class Mount:
    """A bind mount into a container: an absolute host path on an absolute container path."""

    source: Path
    destination: str
    read_only: bool = False
    propagation: str = "rprivate"
    recursive: bool = True


@dataclass(frozen=True, slots=True)
class Resources:
    """What a cgroup enforces. None: no limit. cpu in millicores, memory in bytes."""

    cpu_request: int | None = None
    cpu_limit: int | None = None
    memory_request: int | None = None
    memory_limit: int | None = None
    pids_limit: int | None = None
    """Of pods; a container shares its pod's."""


@dataclass(frozen=True, slots=True)
class Security:
    """A container's securityContext with the pod's folded in and every default made explicit."""

    uid: int | None = None
    gid: int | None = None
    supplemental_groups: tuple[int, ...] = ()
    only_these_groups: bool = False
    """Not those that the image's /etc/group gives its user as well (supplementalGroupsPolicy Strict)."""
    run_as_non_root: bool = False
    privileged: bool = False
    allow_privilege_escalation: bool = False
    read_only_root: bool = False
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    seccomp: str = "RuntimeDefault"
    """RuntimeDefault, Unconfined, or localhost/<path below the seccomp directory>."""
    unmasked_proc: bool = False


@dataclass(frozen=True, slots=True)
class ContainerRequest:
    """One container instance, with everything resolved: the runtime looks nothing up."""

    pod_uid: str
    namespace: str
    pod_name: str
    name: str
    attempt: int
    image: str
    """The image id that ImageStore.ensure returned, or "host"."""
    command: tuple[str, ...]
    """entrypoint; empty: the image's."""
    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    working_dir: str
    mounts: tuple[Mount, ...]
    sandbox: Sandbox
    resources: Resources
    security: Security
    cgroup: str
    """cgroup path below the node's root: podplane/[<qos>/]pod<uid>/<container>_<attempt>."""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    host_pid: bool = False
    termination_message_path: str = "/dev/termination-log"
    log_is_message: bool = False
    """A container that fails without a termination message has the end of its log as one."""
    oom_score_adj: int = 1000
    hostname: str = ""

    @property
    def id(self) -> str:
        return f"{self.pod_uid}_{self.name}_{self.attempt}"


@dataclass(frozen=True, slots=True)
class ContainerExit:
    """How an instance ended. `code` as a shell counts (137 = SIGKILL); None where nobody can know it."""

    id: str
    code: int | None
    oom: bool
    finished_at: float
    """Seconds since the epoch: the exit file's mtime."""
    message: str = ""
    """The termination message, at most 4096 bytes."""


@dataclass(frozen=True, slots=True)
class ContainerFound:
    """An instance that recovery finds: what the runtime and conmon say of it.

    state: created, running, stopped (exit is known or can be read) or unknown.
    """

    id: str
    pod_uid: str
    name: str
    attempt: int
    state: str
    pid: int | None
    conmon_alive: bool
    exit: ContainerExit | None
    started_at: float = 0.0
    """Seconds since the epoch; 0: it was not started, or nobody knows when."""
    image: str = ""
    """The id of its image."""


class RuntimeFailure(Exception):
    """A runtime step failed. `reason` is the status that people see (CreateContainerError, RunContainerError ...)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
