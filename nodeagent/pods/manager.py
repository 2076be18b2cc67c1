"""Every pod of the node: a worker each, from bind to its last trace.

Owns which pods there are, the kept specs (state/pods/<uid>.pb) and the routing of exits. Level-triggered: being told
the same twice changes nothing. Never steps a machine itself. A pod is forgotten only when its object is gone and the
node has no trace of it; until then its newest status is reported again on every connection.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from nodeagent.paths import Paths, replace
from nodeagent.pods import failpoints
from nodeagent.pods.events import Event, PodAdmitted, PodRefused
from nodeagent.pods.objects import Key
from nodeagent.pods.outbox import Outbox
from nodeagent.pods.resources import Refusal, admit
from nodeagent.pods.state import PodState, new_state
from nodeagent.pods.status import phase
from nodeagent.pods.tools import Tools
from nodeagent.pods.worker import PodWorker
from nodeagent.runtime.logs import pod_directory
from nodeagent.types import ContainerExit, Sandbox
from podplane.tasks import Tasks
from podplane.v1.pod_pb2 import Pod
from podplane.v1.session_pb2 import PodTrace

log = logging.getLogger(__name__)

STALE_GRACE = 5.0
"""Seconds at most for a pod whose object is gone already to end by itself."""


class Pods:
    """The pods of this node. `allocatable`: what admission counts with, Kubernetes names to quantities."""

    def __init__(self, tools: Tools, outbox: Outbox, tasks: Tasks, allocatable: Mapping[str, str]) -> None:
        self._tools = tools
        self._outbox = outbox
        self._tasks = tasks
        self._allocatable = allocatable
        self._workers: dict[str, PodWorker] = {}
        self._gone: dict[str, PodState] = {}
        self._unbound: set[str] = set()
        self._versions: dict[str, str] = {}
        tools.objects.listen(self._object_changed)

    # ── what recovery brings ─────────────────────────────────────────────────────────────────────────────────

    def adopt(self, state: PodState, events: Iterable[Event], sandbox: Sandbox | None = None) -> PodWorker:
        """Give a pod its worker, with what happened first."""
        worker = PodWorker(self._tools, state, self._pod_gone)
        worker.found_sandbox(sandbox)
        self._workers[state.uid] = worker
        for event in events:
            worker.post(event)
        self._tasks.spawn(worker.run(), name=f"pod {state.title}")
        return worker

    async def route_exits(self) -> None:
        """Until cancelled: every container's end to its pod."""
        while True:
            end = await self._tools.runtime.exits.get()
            self._exited(end)

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
        if uid in self._gone:
            return
        worker = self._workers.get(uid)
        if worker is not None:
            if worker.update(pod):
                self._keep(pod)
            return
        self._begin(pod)

    def _begin(self, pod: Pod) -> None:
        self._keep(pod)
        state = new_state(pod)
        refusal = self._refusal(pod)
        now = self._tools.clock.now()
        deleted = pod.metadata.HasField("deletionTimestamp")
        event: Event = PodRefused(now, refusal.reason, refusal.message) if refusal else PodAdmitted(now)
        worker = self.adopt(state, [] if deleted else [event])
        if deleted:  # deleted before the node ever saw it: there is nothing to stop
            worker.delete(0.0)

    def _refusal(self, pod: Pod) -> Refusal | None:
        others = [worker.state.pod for worker in self._workers.values() if not worker.state.final]
        return admit(pod, others, self._allocatable)

    def remove(self, uid: str, grace: float) -> None:
        """The pod is no longer this node's: end it, then forget it."""
        self._versions.pop(uid, None)
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
        known = [*self._workers, *self._gone]
        for uid in known:
            if uid in pods:
                continue
            if authoritative:
                # Its object went without this node's word: by force, or because a replacement runs already.
                self.remove(uid, min(STALE_GRACE, self._own_grace(uid)))
            else:
                log.warning("pod %s is not in the snapshot of another or older cluster state: it is kept", uid)

    def verdict(self, uid: str, keep: bool, reason: str) -> None:
        """What the control plane decided about a pod that it did not know."""
        log.info("verdict on pod %s: %s: %s", uid, "keep" if keep else "remove", reason)
        if not keep:
            self.remove(uid, self._own_grace(uid))

    def _own_grace(self, uid: str) -> float:
        worker = self._workers.get(uid)
        return float(worker.state.grace) if worker is not None else 0.0

    def traces(self) -> list[PodTrace]:
        """Every pod of which the node has a trace."""
        states = [*(worker.state for worker in self._workers.values()), *self._gone.values()]
        return [
            PodTrace(
                uid=state.uid,
                namespace=state.pod.metadata.namespace,
                name=state.pod.metadata.name,
                phase=phase(state),
            )
            for state in states
        ]

    @property
    def versions(self) -> Mapping[str, str]:
        """uid -> resourceVersion, as last told: what a digest is made of."""
        return self._versions

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

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────

    def _pod_gone(self, uid: str) -> None:
        worker = self._workers.pop(uid)
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
        spec_path(self._tools.paths, uid).unlink(missing_ok=True)
        failpoints.hit("forget:after")
        self._outbox.forgotten(uid)

    def _keep(self, pod: Pod) -> None:
        replace(spec_path(self._tools.paths, pod.metadata.uid), pod.SerializeToString())


def spec_path(paths: Paths, uid: str) -> Path:
    """Where a pod's spec is kept."""
    return paths.pods / f"{uid}.pb"
