"""Every pod of the node: a worker each, from bind to its last trace.

Owns which pods there are and the routing of exits. Level-triggered: being told the same twice changes nothing. Never
steps a machine itself. A pod is forgotten only when its object is gone and the node has no trace of it; until then its
newest status is reported again on every connection. A pod whose spec cannot be kept (kept.py; a full disk) waits.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from nodeagent.pods import admission, failpoints
from nodeagent.pods.addresses import PoolExhausted
from nodeagent.pods.disk import RETRY
from nodeagent.pods.events import ClockStepped, Event, PodAdmitted, PodEvicted, PodRefused, SandboxLost
from nodeagent.pods.kept import UNKNOWN, KeptPods, Origin
from nodeagent.pods.objects import Key
from nodeagent.pods.outbox import Outbox
from nodeagent.pods.resources import Refusal, pod_request
from nodeagent.pods.state import PodState, new_state
from nodeagent.pods.status import phase
from nodeagent.pods.tools import Tools
from nodeagent.pods.worker import PodWorker
from nodeagent.pressure.refusal import refuse
from nodeagent.runtime.logs import pod_directory
from nodeagent.types import ContainerExit, Sandbox
from podplane.qos import qos_class
from podplane.tasks import Tasks
from podplane.v1.pod_pb2 import Pod, PodSpec
from podplane.v1.session_pb2 import PodTrace

log = logging.getLogger(__name__)

STALE_GRACE = 5.0
"""Seconds at most for a pod whose object is gone already to end by itself."""


class Pods:
    """The pods of this node.

    allocatable: what admission counts with, Kubernetes names to quantities. short: the node's pressure conditions.
    """

    def __init__(
        self,
        tools: Tools,
        outbox: Outbox,
        tasks: Tasks,
        allocatable: Mapping[str, str],
        short: Callable[[], Collection[str]],
    ) -> None:
        self._tools = tools
        self._outbox = outbox
        self._tasks = tasks
        self._allocatable = allocatable
        self._short = short
        self._workers: dict[str, PodWorker] = {}
        self._gone: dict[str, PodState] = {}
        self._unbound: set[str] = set()
        self._versions: dict[str, str] = {}
        self._unsaved: dict[str, Pod] = {}
        self._burstable: dict[str, int] = {}
        self._weight = 0
        """Millicores that each burstable pod requests, and that all of them do."""
        self.kept = KeptPods(tools.paths)
        tools.journal.sync_first(self.kept.sync)
        self.origin = UNKNOWN
        """The cluster and epoch that speak now: what they bind is theirs."""
        tools.objects.listen(self._object_changed)

    # ── what recovery brings ─────────────────────────────────────────────────────────────────────────────────

    def adopt(self, state: PodState, events: Iterable[Event], sandbox: Sandbox | None = None) -> PodWorker:
        """Give a pod its worker, with what happened first."""
        worker = PodWorker(self._tools, state, self._pod_gone)
        worker.found_sandbox(sandbox)
        if sandbox is not None:
            self._tools.sandboxes.watch(sandbox)
        self._workers[state.uid] = worker
        self._weigh(state.uid, state.pod.spec)
        self._tools.host_ports.follow(state)  # at once: the proxy must not take away what an earlier agent has made
        for event in events:
            worker.post(event)
        self._tasks.spawn(worker.run(), name=f"pod {state.title}")
        return worker

    def _weigh(self, uid: str, spec: PodSpec | None) -> None:
        """The burstable pods compete with the others by what they request, all together."""
        if spec is None:
            self._burstable.pop(uid, None)
        elif qos_class(spec) == "Burstable":
            self._burstable[uid] = pod_request(spec, "cpu")
        milli = sum(self._burstable.values())
        if milli != self._weight:
            self._weight = milli
            self._tools.runtime.pod_cgroups.weigh_burstable(milli)

    async def route_exits(self) -> None:
        """Until cancelled: every container's end to its pod."""
        while True:
            end = await self._tools.runtime.exits.get()
            self._exited(end)

    async def route_losses(self) -> None:
        """Until cancelled: every sandbox that ended by itself to its pod."""
        while True:
            uid, attempt = await self._tools.sandboxes.lost.get()
            if uid in self._workers:
                self._workers[uid].post(SandboxLost(self._tools.clock.now(), attempt))

    def _exited(self, end: ContainerExit) -> None:
        uid, name, attempt = end.id.split("_")
        worker = self._workers.get(uid)
        if worker is not None:
            worker.container_exited(name, int(attempt), end)

    # ── what the control plane says ──────────────────────────────────────────────────────────────────────────

    def put(self, pod: Pod) -> None:
        """A pod of this node, new or changed."""
        uid = pod.metadata.uid
        self._versions[uid] = pod.metadata.resourceVersion
        self._unbound.discard(uid)
        worker = self._workers.get(uid)
        is_new = worker is None and uid not in self._gone
        if is_new:
            self._tools.runtime.prepay()  # of the first container: its wait is over when the sandbox stands
        changed = worker.update(pod) if worker is not None else is_new
        if changed or self.kept.origin(uid) != self.origin:
            self._save(pod)
        if is_new and uid not in self._unsaved:
            self._begin(pod)

    def _save(self, pod: Pod) -> None:
        uid = pod.metadata.uid
        try:
            failpoints.hit("keep-spec:before")
            self.kept.keep(pod, self.origin)
            failpoints.hit("keep-spec:after")
        except OSError as error:
            self._tools.disk.failed(f"the spec of pod {pod.metadata.namespace}/{pod.metadata.name}", error)
            self._unsaved[uid] = pod
        else:
            self._tools.disk.worked()
            self._unsaved.pop(uid, None)

    async def save_waiting(self) -> None:
        """Until cancelled: keep what could not be kept as soon as the disk takes it, and begin what waited for that."""
        while True:
            await asyncio.sleep(RETRY)
            for uid, pod in list(self._unsaved.items()):
                self._save(pod)
                if uid in self._unsaved:
                    break
                if uid not in self._workers and uid not in self._gone:
                    self._begin(pod, waited=True)

    def _begin(self, pod: Pod, *, waited: bool = False) -> None:
        state = new_state(pod)
        state.offset = self._tools.clock.offset
        refusal = self._refusal(pod, waited=waited)
        now = self._tools.clock.now()
        deleted = pod.metadata.HasField("deletionTimestamp")
        if deleted:  # before the node ever saw it: there is nothing to stop
            self.adopt(state, []).delete(0.0)
        elif refusal:
            self.adopt(state, [PodRefused(now, refusal.reason, refusal.message)])
        else:
            self.adopt(state, [PodAdmitted(now, self._address(pod))])

    def _address(self, pod: Pod) -> str:
        """The pod's own; "" where it has none, or none can be had now: the pod asks again and tells why."""
        if pod.spec.hostNetwork or self._tools.network_problem():
            return ""
        failpoints.hit("take-address:before")
        try:
            return self._tools.addresses.take(pod.metadata.uid)
        except PoolExhausted:
            return ""
        finally:
            failpoints.hit("take-address:after")

    def _refusal(self, pod: Pod, *, waited: bool) -> Refusal | None:
        if not waited and (refusal := refuse(pod, self._short())):  # one that waited for the disk was taken on before
            return refusal
        others = [worker.state.pod for worker in self._workers.values() if not worker.state.final]
        return admission.refusal(pod, others, self._allocatable, self._tools.facts.unsafe_sysctls)

    def withdrawn(self, uid: str) -> None:
        """No node's service rules lead to the pod any more; told again at every connection."""
        worker = self._workers.get(uid)
        if worker is not None and not worker.state.withdrawn:
            worker.withdrawn()

    def remove(self, uid: str, grace: float) -> None:
        """The pod is no longer this node's: end it, then forget it."""
        self._versions.pop(uid, None)
        self._unsaved.pop(uid, None)
        self._unbound.add(uid)
        worker = self._workers.get(uid)
        if worker is not None:
            worker.delete(grace)
        else:
            self._forget(uid)

    def snapshot(self, pods: Mapping[str, Pod], *, authoritative: bool) -> None:
        """All pods of the node. What is not among them goes only where the snapshot may say so."""
        for pod in pods.values():
            self.put(pod)
        known = [*self._workers, *self._gone, *self._unsaved]
        for uid in known:
            if uid in pods:
                continue
            if authoritative and self.kept.origin(uid) in (self.origin, UNKNOWN):
                # Its object went without this node's word: by force, or because a replacement runs already.
                self.remove(uid, min(STALE_GRACE, self._own_grace(uid)))
            else:
                log.warning("pod %s is not in the snapshot of a cluster state that did not bind it: it is kept", uid)

    def verdict(self, uid: str, keep: bool, reason: str) -> None:
        """What the control plane decided about a pod that it did not know."""
        log.info("verdict on pod %s: %s: %s", uid, "keep" if keep else "remove", reason)
        if not keep:
            self.remove(uid, self._own_grace(uid))

    # ── what the node cannot bear ────────────────────────────────────────────────────────────────────────────

    def states(self) -> list[PodState]:
        """Every pod that has a worker."""
        return [worker.state for worker in self._workers.values()]

    def evictable(self) -> list[PodState]:
        """The pods that are not at their end already."""
        return [state for state in self.states() if not (state.final or state.deleted or state.stopping == "failed")]

    def evict(self, uid: str, message: str) -> None:
        """End a pod; it fails as Evicted."""
        worker = self._workers.get(uid)
        if worker is not None:
            worker.post(PodEvicted(self._tools.clock.now(), message))

    def holds_processes(self, uid: str) -> bool:
        """Whether a container of the pod may still run."""
        worker = self._workers.get(uid)
        return worker is not None and any(container.live for container in worker.state.containers)

    def _own_grace(self, uid: str) -> float:
        worker = self._workers.get(uid)
        return float(worker.state.grace) if worker is not None else 0.0

    def images(self) -> set[str]:
        """The ids of the images that the pods' containers have, or may be made of again."""
        return {
            container.image_id
            for worker in self._workers.values()
            for container in worker.state.containers
            if container.image_id and not (worker.state.final and not container.remains)
        }

    def phases(self) -> Iterator[str]:
        """The phase of every pod of which the node has a trace."""
        return (trace.phase for trace in self.traces())

    @property
    def depth(self) -> int:
        """How many events wait for the pods' workers."""
        return sum(worker.depth for worker in self._workers.values())

    def traces(self) -> list[PodTrace]:
        """Every pod of which the node has a trace."""
        states = [*(worker.state for worker in self._workers.values()), *self._gone.values()]
        return [self.kept.trace(state.pod, phase(state)) for state in states]

    @property
    def versions(self) -> Mapping[str, str]:
        """uid -> resourceVersion, as last told: what a digest is made of."""
        return self._versions

    def newest(self, origin: Origin) -> int:
        """The newest revision of what that cluster state has bound here; 0 for none."""
        bound = (state.pod.metadata for state in self.states() if self.kept.origin(state.uid) == origin)
        return max((int(metadata.resourceVersion or 0) for metadata in bound), default=0)

    def find(self, uid: str) -> PodState | None:
        """A pod of this node, also one of which only its logs are left."""
        worker = self._workers.get(uid)
        return worker.state if worker is not None else self._gone.get(uid)

    def _object_changed(self, kind: str, key: Key) -> None:
        if kind not in ("configMap", "secret"):
            return
        for worker in self._workers.values():
            if worker.state.pod.metadata.namespace == key[0]:
                worker.objects_changed()

    def clock_stepped(self, by: float) -> None:
        """The wall clock was set, and the agent's clock has followed."""
        for worker in self._workers.values():
            worker.post(ClockStepped(self._tools.clock.now(), by))

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────

    def _pod_gone(self, uid: str) -> None:
        worker = self._workers.pop(uid)
        self._weigh(uid, None)
        self._gone[uid] = worker.state
        if uid in self._unbound:
            self._forget(uid)

    def _forget(self, uid: str) -> None:
        state = self._gone.pop(uid, None)
        self._unbound.discard(uid)
        failpoints.hit("forget:before")
        if state is not None:
            metadata = state.pod.metadata
            logs = pod_directory(self._tools.paths.state, metadata.namespace, metadata.name, uid)
            shutil.rmtree(logs, ignore_errors=True)
        self._tools.journal.forget(uid)
        self.kept.forget(uid)
        failpoints.hit("forget:after")
        self._outbox.forgotten(uid)
