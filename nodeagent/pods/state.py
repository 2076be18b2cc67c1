"""What is known of one pod: plain data that the machine changes and the journal keeps. Pure.

Times are seconds since the epoch by the agent's clock (clock.py); when that is set, those to come move (stepping.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from podplane.qos import qos_class
from podplane.v1.container_pb2 import Container
from podplane.v1.pod_pb2 import Pod

# Stages of a container. Alive from CREATING to RUNNING: between them an instance may exist. In POST_START its process
# runs and its postStart hook does; in RUNNING both are past their start.
WAITING = "waiting"
PULLING = "pulling"
PULLED = "pulled"
CREATING = "creating"
CREATED = "created"
STARTING = "starting"
POST_START = "post-start"
RUNNING = "running"
EXITED = "exited"
UP = frozenset({POST_START, RUNNING})
LIVE = frozenset({CREATING, CREATED, STARTING}) | UP

# Stages of a part of the pod: its sandbox and its volumes.
ABSENT = "absent"
MAKING = "making"
READY = "ready"
REMOVING = "removing"


@dataclass(slots=True)
class Ended:
    """How an instance ended: what ContainerStateTerminated shows."""

    code: int
    reason: str
    message: str
    started_at: float
    finished_at: float
    attempt: int
    signal: int = 0


@dataclass(slots=True)
class ContainerState:
    """One container of the spec and its newest instance. `attempt` names the instance, `exits` counts records."""

    name: str
    image: str
    init: bool
    stage: str = WAITING
    attempt: int = -1
    pid: int = 0
    reason: str = ""
    """Waiting reason; empty: ContainerCreating or PodInitializing."""
    message: str = ""
    image_id: str = ""
    image_ref: str = ""
    """repository@digest of the image, once it is known."""
    image_name: str = ""
    """The reference in full that it was found by."""
    retry_at: float = 0.0
    pull_failures: int = 0
    crashes: int = 0
    exits: int = 0
    restarts: int = 0
    started_at: float = 0.0
    ended: Ended | None = None
    last: Ended | None = None
    seen_at: float = 0.0
    """When the newest failure was first shown; its back-off is shown SHOW seconds later."""
    sidecar: bool = False
    """An init container that is always restarted: it runs along with what comes after it."""
    done: bool = False
    """An init container that has exited 0 in this sandbox, a sidecar that has started in it."""
    respec: bool = False
    """The spec of the running instance changed: it is stopped to be started anew, whatever the policy."""
    doom: str = ""
    """Why the running instance is stopped: a probe or its postStart failed. It is the message of the event Killing."""
    waits_for_startup: bool = False
    waits_for_readiness: bool = False
    post_start: bool = False
    pre_stop: bool = False
    """Which probes and hooks the spec has."""
    startup_passed: bool = False
    ready: bool = False
    """What the probes of the running instance said last."""
    hook: str = ""
    """The hook that is under way: postStart or preStop."""
    hook_at: float = 0.0
    """When it began: a sleep that the next agent takes over is not longer for it."""
    stop_at: float = 0.0
    """When the running instance began to be stopped; then preStop, its turn, SIGTERM and SIGKILL follow."""
    pre_stopped: bool = False
    """preStop is over, or was given up."""
    held: bool = False
    """SIGTERM had to wait: the instance then has some time for it, whatever the grace has left."""
    spared_until: float = 0.0
    term_at: float = 0.0
    kill_at: float = 0.0
    killed_at: float = 0.0
    remains: bool = False
    """Something of the newest instance may still be on the node."""
    removing: bool = False
    clean_at: float = 0.0
    """When a removal that failed is tried again."""

    @property
    def live(self) -> bool:
        return self.stage in LIVE

    @property
    def ending(self) -> bool:
        """Whether the running instance is stopped for reasons of its own."""
        return self.respec or bool(self.doom)

    def forget_stop(self) -> None:
        """What was done to stop an instance says nothing of the next one."""
        self.hook, self.pre_stopped, self.held = "", False, False
        self.hook_at = self.stop_at = self.spared_until = 0.0
        self.term_at = self.kill_at = self.killed_at = 0.0


@dataclass(slots=True)
class Part:
    """The sandbox or the volumes: a stage, and when to try again."""

    stage: str = ABSENT
    attempt: int = 0
    failures: int = 0
    retry_at: float = 0.0
    message: str = ""


@dataclass(slots=True)
class PodState:
    """The whole of a pod. `pod` is the newest spec; it is kept beside the journal, not in it."""

    pod: Pod
    uid: str
    qos: str = ""
    """The pod's quality of service, which it keeps."""
    init: list[ContainerState] = field(default_factory=list)
    apps: list[ContainerState] = field(default_factory=list)
    admitted: bool = False
    started_at: float = 0.0
    sandbox: Part = field(default_factory=Part)
    volumes: Part = field(default_factory=Part)
    address: str = ""
    stopping: str = ""
    """Why everything is stopped: deleted, failed (reason says why), completed (sidecars) or sandbox (to start anew)."""
    kill_at: float = 0.0
    final: str = ""
    """Succeeded or Failed, once the phase is terminal; it never changes again."""
    reason: str = ""
    message: str = ""
    held_until: float = 0.0
    """Until when SIGTERM waits for the pod to leave the nodes' service rules."""
    withdrawn: bool = False
    """It has left them."""
    deleted: bool = False
    gone: bool = False
    offset: float = 0.0
    """Wall clock minus monotonic clock when the timers were last right; 0: not known."""
    skew: float = 0.0
    """By how much the wall clock was set since started_at."""
    steps: dict[str, list[int]] = field(default_factory=dict)
    """Step of the start, with its container -> microseconds from started_at to its beginning, and how many it took."""
    start_unseen: bool = False
    """Nobody knows its steps: an agent that notes none has made them, or the journal is lost."""
    since: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Condition type -> its status and when it took it."""
    history: deque[str] = field(default_factory=lambda: deque(maxlen=64))

    @property
    def containers(self) -> Iterator[ContainerState]:
        yield from self.init
        yield from self.apps

    def container(self, name: str) -> ContainerState:
        """The container of that name; KeyError where the pod has none."""
        for container in self.containers:
            if container.name == name:
                return container
        raise KeyError(name)

    @property
    def initialized(self) -> bool:
        return all(container.done for container in self.init)

    @property
    def sidecars(self) -> Iterator[ContainerState]:
        return (container for container in self.init if container.sidecar)

    @property
    def restart_policy(self) -> str:
        return self.pod.spec.restartPolicy or "Always"

    @property
    def grace(self) -> int:
        spec = self.pod.spec
        return spec.terminationGracePeriodSeconds if spec.HasField("terminationGracePeriodSeconds") else 30

    @property
    def title(self) -> str:
        """As the kubelet names a pod in messages: name_namespace(uid)."""
        return f"{self.pod.metadata.name}_{self.pod.metadata.namespace}({self.uid})"


def new_state(pod: Pod) -> PodState:
    """A pod of which nothing has been done yet."""
    return PodState(
        pod=pod,
        uid=pod.metadata.uid,
        qos=qos_class(pod.spec),
        init=[_container(c, init=True) for c in pod.spec.initContainers],
        apps=[_container(c, init=False) for c in pod.spec.containers],
    )


def _container(spec: Container, *, init: bool) -> ContainerState:
    return ContainerState(
        spec.name,
        spec.image,
        init=init,
        sidecar=init and spec.restartPolicy == "Always",
        waits_for_startup=spec.HasField("startupProbe"),
        waits_for_readiness=spec.HasField("readinessProbe"),
        post_start=spec.lifecycle.HasField("postStart"),
        pre_stop=spec.lifecycle.HasField("preStop"),
    )
