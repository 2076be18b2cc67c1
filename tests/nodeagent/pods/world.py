"""A working model of a node for script tests of the machine: does effects in memory, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nodeagent.pods import effects as do
from nodeagent.pods import events as did
from nodeagent.pods.machine import step, wake_at
from nodeagent.pods.state import PodState, new_state
from nodeagent.pods.status import pod_status
from podplane.v1.pod_pb2 import Pod, PodStatus


def make_pod(apps: int = 1, init: int = 0, policy: str = "Always", *, image: str = "host", **spec: Any) -> Pod:
    """A pod with apps a0, a1 ... and init containers i0, i1 ..."""
    pod = Pod()
    pod.metadata.name, pod.metadata.namespace, pod.metadata.uid = "web", "default", "uid-1"
    pod.spec.restartPolicy = policy
    pod.spec.volumes.add(name="scratch").emptyDir.SetInParent()
    for index in range(init):
        pod.spec.initContainers.add(name=f"i{index}", image=image)
    for index in range(apps):
        pod.spec.containers.add(name=f"a{index}", image=image)
    for name, value in spec.items():
        setattr(pod.spec, name, value)
    return pod


class World:
    """One pod on a node that obeys. `pending` holds effects that are not done yet; tests do them one by one."""

    def __init__(self, pod: Pod) -> None:
        self.state: PodState = new_state(pod)
        self.now = 1_000_000.0
        self.pending: list[do.Effect] = []
        self.done: list[do.Effect] = []
        self.told: list[str] = []
        self.alive: dict[str, int] = {}
        self.statuses: list[PodStatus] = []

    def post(self, event: did.Event) -> list[do.Effect]:
        issued = step(self.state, event)
        for effect in issued:
            if isinstance(effect, do.Tell):
                self.told.append(f"{effect.reason}: {effect.message}")
            elif isinstance(effect, do.CancelPull):
                self.pending = [e for e in self.pending if e != do.PullImage(effect.container, self._image(effect))]
                self.done.append(effect)
            elif isinstance(effect, do.CancelHook):
                self.pending = [
                    e for e in self.pending if not (isinstance(e, do.RunHook) and e.container == effect.container)
                ]
                self.done.append(effect)
            else:
                self.pending.append(effect)
        self.statuses.append(pod_status(self.state, "10.0.0.1"))
        return issued

    def _image(self, effect: do.CancelPull) -> str:
        found = [e for e in self.pending if isinstance(e, do.PullImage) and e.container == effect.container]
        return found[0].image if found else ""

    def perform(self, effect: do.Effect) -> None:
        """Do a pending effect successfully."""
        self.pending.remove(effect)
        self.done.append(effect)
        for event in self._outcome(effect):
            self.post(event)

    def _outcome(self, effect: do.Effect) -> list[did.Event]:
        at = self.now
        match effect:
            case do.TakeAddress():
                return [did.AddressTaken(at, "10.1.0.2")]
            case do.CreateSandbox(attempt=attempt):
                return [did.SandboxReady(at, attempt)]
            case do.RemoveSandbox(attempt=attempt):
                return [did.SandboxRemoved(at, attempt)]
            case do.PrepareVolumes():
                return [did.VolumesReady(at)]
            case do.RemoveVolumes():
                return [did.VolumesRemoved(at)]
            case do.PullImage(container=name, image=image):
                return [did.ImageReady(at, name, image, image, image, f"Container image {image!r} already present")]
            case do.CreateContainer(container=name, attempt=attempt):
                assert name not in self.alive, "two live instances"
                return [did.ContainerCreated(at, name, attempt, 42)]
            case do.StartContainer(container=name, attempt=attempt):
                assert name not in self.alive, "two live instances"
                self.alive[name] = attempt
                return [did.ContainerStarted(at, name, attempt)]
            case do.RunHook(container=name, attempt=attempt, hook=hook):
                return [did.HookEnded(at, name, attempt, hook)]
            case do.KillContainer(container=name, attempt=attempt):
                return self._ends(name, attempt, 137)
            case do.RemoveContainer(container=name, attempt=attempt):
                assert self.alive.get(name) != attempt, "a live instance is removed"
                return [did.ContainerRemoved(at, name, attempt)]
            case _:
                return []

    def _ends(self, name: str, attempt: int, code: int) -> list[did.Event]:
        if self.alive.get(name) != attempt:
            return []
        del self.alive[name]
        return [did.ContainerExited(self.now, name, attempt, code, finished_at=self.now)]

    def exit(self, name: str, code: int, *, oom: bool = False) -> None:
        attempt = self.alive.pop(name)
        self.post(did.ContainerExited(self.now, name, attempt, code, oom, self.now))

    def succeed(self, *names: str) -> None:
        """Let containers exit 0, one after the other, with all that follows from each."""
        for name in names:
            self.exit(name, 0)
            self.settle()

    def settle(self, unless: Callable[[do.Effect], bool] = lambda effect: False) -> None:
        """Do everything that is pending, in order, until nothing is (but what `unless` holds back)."""
        while todo := [effect for effect in self.pending if not unless(effect)]:
            self.perform(todo[0])

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with every timer that becomes due on the way."""
        end = self.now + seconds
        while (due := wake_at(self.state, self.now)) is not None and due <= end:
            self.now = due
            self.post(did.TimePassed(self.now))
            self.settle()
        self.now = end
        self.post(did.TimePassed(self.now))
        self.settle()

    def run(self) -> None:
        """Admit the pod and let everything succeed."""
        self.post(did.PodAdmitted(self.now))
        self.settle()

    @property
    def status(self) -> PodStatus:
        return self.statuses[-1]

    def issued(self, kind: type[Any]) -> list[Any]:
        return [effect for effect in (*self.done, *self.pending) if isinstance(effect, kind)]
