"""The scheduling loop: decide and assume one pod at a time, bind many at once, forget what could not be bound.

Owns the snapshot and the queue, both made from the store and never stored: it can be restarted at any moment. It
writes bindings, the PodScheduled condition of pods that fit nowhere, and events. It never moves a bound pod. A bind
is a compare-and-set on the pod, so a pod that was changed, deleted or bound meanwhile is not harmed by a late one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from controlplane.controllers.loop import follow
from controlplane.controllers.recorder import About, Recorder
from controlplane.objects import Objects
from controlplane.scheduler.nodeinfo import NodeInfo, read_node
from controlplane.scheduler.podinfo import DEFAULT_SCHEDULER, PodInfo, read_pod
from controlplane.scheduler.queue import Cause, Entry, Queue
from controlplane.scheduler.ranking import Ranking, Rankings
from controlplane.scheduler.snapshot import Snapshot
from controlplane.store.stored import Event
from podplane.errors import Conflict, NotFound, PodplaneError
from podplane.kinds import NODE, POD
from podplane.times import stamp
from podplane.v1 import node_pb2, pod_pb2

log = logging.getLogger(__name__)

BINDS_IN_FLIGHT = 512
_REASON = "Unschedulable"
_TURN = 32
"""Decisions in a row before other tasks of the loop get their turn."""


class Scheduler:
    """`await Scheduler(objects).run()` schedules until it is cancelled."""

    def __init__(self, objects: Objects, clock: Callable[[], float] = time.time) -> None:
        self._objects = objects
        self._clock = clock
        self._recorder = Recorder(objects, DEFAULT_SCHEDULER, clock)
        self._snapshot = Snapshot()
        self._rankings = Rankings(self._snapshot)
        self._queue = Queue()
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(BINDS_IN_FLIGHT)
        self._tasks: asyncio.TaskGroup

    async def run(self) -> None:
        """Watch, decide and bind, for ever."""
        async with asyncio.TaskGroup() as self._tasks:
            self._tasks.create_task(follow(self._objects, NODE, self._node_event, self._load), name="scheduler: nodes")
            self._tasks.create_task(follow(self._objects, POD, self._pod_event, self._load), name="scheduler: pods")
            self._tasks.create_task(self._recorder.run(), name="scheduler: events")
            await self._decide_all()

    def depths(self) -> dict[str, int]:
        """How many pods without a node are in which queue."""
        return self._queue.depths()

    # What the watches say.

    def _load(self) -> None:
        """Start anew from what is in the store. Binds in flight are counted again when their events arrive."""
        self._snapshot = Snapshot()
        self._rankings = Rankings(self._snapshot)
        self._queue = Queue()
        for node in self._objects.list(NODE):
            self._snapshot.set_node(node)
        for pod in self._objects.list(POD):
            self._take_pod(pod)
        self._wake.set()

    def _node_event(self, event: Event) -> None:
        node: node_pb2.Node = event.stored.obj
        before = self._snapshot.nodes.get(node.metadata.name)
        if event.type == "DELETED":
            self._snapshot.remove_node(node.metadata.name)
            return
        cause = relevance(before, node)
        if not cause:
            return
        self._snapshot.set_node(node)
        self._moved(cause)

    def _pod_event(self, event: Event) -> None:
        if event.type != "DELETED":
            self._take_pod(event.stored.obj)
            return
        uid = event.stored.obj.metadata.uid
        self._queue.discard(uid)
        if self._snapshot.remove_pod(uid):
            self._moved(Cause.ROOM)

    def _take_pod(self, message: pod_pb2.Pod) -> None:
        pod = read_pod(message, self._snapshot.pod(message.metadata.uid))
        if self._snapshot.set_pod(pod):
            self._moved(Cause.ROOM)
        ours = (message.spec.schedulerName or DEFAULT_SCHEDULER) == DEFAULT_SCHEDULER
        if pod.node or pod.finished or not ours or message.metadata.HasField("deletionTimestamp"):
            self._queue.discard(pod.uid)
        elif self._snapshot.is_assumed(pod.uid):
            self._queue.update(pod)  # from before its bind, which is on the way or done: not to be placed again
        else:
            self._queue.set(pod)
            self._wake.set()

    def _moved(self, cause: Cause) -> None:
        self._queue.moved(cause, self._clock())
        self._wake.set()

    # Decisions.

    async def _decide_all(self) -> None:
        while True:
            await self._wait_for_work()
            for _ in range(_TURN):
                await self._slots.acquire()
                entry = self._queue.pop(self._clock())
                if entry is None:
                    self._slots.release()
                    break
                self._decide(entry)
            await asyncio.sleep(0)

    async def _wait_for_work(self) -> None:
        self._wake.clear()
        due = self._queue.due()
        wait = None if due is None else due - self._clock()
        if wait is not None and wait <= 0:
            return
        try:
            async with asyncio.timeout(wait):
                await self._wake.wait()
        except TimeoutError:
            return

    def _decide(self, entry: Entry) -> None:
        """Place one pod, or say why it cannot be placed. Takes over one slot, and gives it back."""
        ranking = self._rankings.of(entry.pod.shape)
        node = ranking.best()
        if node is None:
            self._slots.release()
            self._queue.refused(entry, waits_for(ranking))
            self._report(entry.pod, ranking.message())
            return
        self._snapshot.assume(entry.pod, node)
        self._tasks.create_task(self._bind(entry, node, self._snapshot, self._queue))

    async def _bind(self, entry: Entry, node: str, snapshot: Snapshot, queue: Queue) -> None:
        pod = entry.pod
        try:
            await self._objects.bind(pod.namespace, pod.name, node, uid=pod.uid)
        except PodplaneError as error:
            snapshot.forget(pod.uid)
            if isinstance(error, NotFound):
                queue.discard(pod.uid)
            else:
                self._bind_failed(entry, node, queue, error)
            self._moved(Cause.ROOM)
        else:
            queue.discard(pod.uid)
            message = f"Successfully assigned {pod.key} to {node}"
            self._recorder.record(_about(pod), "Normal", "Scheduled", message)
        finally:
            self._slots.release()

    def _bind_failed(self, entry: Entry, node: str, queue: Queue, error: PodplaneError) -> None:
        queue.failed(entry)
        if isinstance(error, Conflict):  # bound or changed meanwhile: its event is on the way
            log.debug("pod %s is not bound to %s: %s", entry.pod.key, node, error)
            return
        log.warning("cannot bind pod %s to %s: %s", entry.pod.key, node, error)
        self._recorder.record(_about(entry.pod), "Warning", "FailedScheduling", f"Binding to {node} failed: {error}")

    # What people see.

    def _report(self, pod: PodInfo, message: str) -> None:
        """Write the condition where it differs from what is there, and the event that goes with it."""
        stored = self._objects.cache.get(POD, pod.namespace, pod.name)
        if stored is None or stored.obj.metadata.uid != pod.uid:
            return
        if set_unschedulable(_copy(stored.obj), message, self._clock()):
            self._recorder.record(_about(pod), "Warning", "FailedScheduling", message)
            self._tasks.create_task(self._write_condition(pod, message))

    async def _write_condition(self, pod: PodInfo, message: str) -> None:
        def change(current: pod_pb2.Pod) -> bool:
            return not current.spec.nodeName and set_unschedulable(current, message, self._clock())

        try:
            await self._objects.mutate(POD, pod.namespace, pod.name, change, status=True, uid=pod.uid)
        except (NotFound, Conflict) as error:
            log.debug("pod %s changed meanwhile: %s", pod.key, error)
        except PodplaneError as error:
            log.warning("cannot write the status of pod %s: %s", pod.key, error)


def _copy(pod: pod_pb2.Pod) -> pod_pb2.Pod:
    copy = pod_pb2.Pod()
    copy.CopyFrom(pod)
    return copy


def _about(pod: PodInfo) -> About:
    return About("v1", "Pod", pod.namespace, pod.name, pod.uid)


def set_unschedulable(pod: pod_pb2.Pod, message: str, now: float) -> bool:
    """Set PodScheduled=False; False where the pod says so already, in the same words."""
    condition = next((each for each in pod.status.conditions if each.type == "PodScheduled"), None)
    if condition is None:
        condition = pod.status.conditions.add(type="PodScheduled")
    elif (condition.status, condition.reason, condition.message) == ("False", _REASON, message):
        return False
    if condition.status != "False":
        condition.lastTransitionTime.CopyFrom(stamp(now))
    condition.status, condition.reason, condition.message = "False", _REASON, message
    return True


def waits_for(ranking: Ranking) -> Cause:
    """What may help a pod that these reasons kept out. A new node always may."""
    refused = ranking.refused_by()
    room = any(not reason.startswith("node(s)") or "free ports" in reason for reason in refused)
    return Cause.ANY if room else Cause.NODE


def relevance(before: NodeInfo | None, node: node_pb2.Node) -> Cause:
    """What a node's change may mend; nothing (0) where all that scheduling looks at is as before."""
    if before is None:
        return Cause.ANY
    after = read_node(node)
    cause = Cause(0)
    if (before.labels, before.taints, before.unschedulable) != (after.labels, after.taints, after.unschedulable):
        # A node that opens has room of its own, so pods that wait for room are concerned as well.
        cause |= Cause.ANY
    offered = (before.cpu, before.memory, before.ephemeral, before.max_pods, before.other)
    if offered != (after.cpu, after.memory, after.ephemeral, after.max_pods, after.other):
        cause |= Cause.ROOM
    return cause
