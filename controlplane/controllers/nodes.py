"""Node lifecycle: silence is noticed, told, tolerated for a while, and then the pods are given up.

    heard ──► silent for the grace period: Ready=Unknown, taint unreachable, pods' Ready=Unknown
                 │ heard again: all of that is undone
                 └─► toleration of a pod over ──► NodeLost, deleted (and so replaced) ──► removed: no node confirms it

Every time that decides is counted on the loop's clock from when this process saw it: a jump of the wall clock evicts
nobody, and after a restart every node has its full grace again. lifecycle.py decides; this module looks once a
second, and at once where a node's taints do not say what its conditions do, and writes. A failed write is tried again
at the next look. While 55 % or more of the nodes are silent, nothing is evicted from silent nodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Protocol

from controlplane.controllers import lifecycle
from controlplane.controllers.facts import copy_of, is_finished, is_terminating, key_of
from controlplane.controllers.loop import follow
from controlplane.controllers.recorder import About, Recorder
from controlplane.objects import Objects
from controlplane.store.stored import Event
from podplane.errors import Conflict, NotFound, PodplaneError
from podplane.kinds import NODE, POD
from podplane.v1 import node_pb2, pod_pb2

log = logging.getLogger(__name__)

LOOK_EVERY = 1.0
LOOK_AGAIN = 0.05
"""Seconds between two looks at least, however often nodes change."""
LOST_SHOWN = 5
"""Seconds for which a pod that is given up is still to be seen, as NodeLost."""

_Pods = Mapping[str, list[pod_pb2.Pod]]


class Heard(Protocol):
    """What this controller needs of the sessions."""

    def last_seen(self, name: str) -> float | None:
        """When the node's agent last spoke, on the loop's clock; None: not since this process began."""


async def run(
    objects: Objects, sessions: Heard, recorder: Recorder, grace: float, clock: Callable[[], float] = time.time
) -> None:
    """Look at all nodes once a second and when one of them wants it, for ever. `grace` in seconds."""
    controller = NodeController(objects, sessions, recorder, grace, clock)
    wanted = asyncio.Event()

    def changed(event: Event) -> None:
        if event.type != "DELETED" and lifecycle.set_taints(copy_of(event.stored.obj), clock()):
            wanted.set()

    following = asyncio.ensure_future(follow(objects, NODE, changed, wanted.set))
    try:
        while not following.done():
            wanted.clear()
            await controller.look(asyncio.get_running_loop().time())
            await asyncio.sleep(LOOK_AGAIN)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wanted.wait(), LOOK_EVERY - LOOK_AGAIN)
        following.result()
    finally:
        following.cancel()


class NodeController:
    """`look(now)` is one round; now is a time on the loop's clock."""

    def __init__(
        self, objects: Objects, sessions: Heard, recorder: Recorder, grace: float, clock: Callable[[], float]
    ) -> None:
        self._objects = objects
        self._sessions = sessions
        self._recorder = recorder
        self._grace = grace
        self._clock = clock
        self._first_seen: dict[str, float] = {}
        self._ready: dict[str, bool] = {}
        self._before: dict[str, list[node_pb2.NodeCondition]] = {}
        self._marked: set[str] = set()
        """Nodes whose pods may say Unknown; at first that is any."""
        self._tainted: dict[tuple[str, str], float] = {}
        self._lost: dict[str, float] = {}
        self._disrupted = False

    async def look(self, now: float) -> None:
        """One round over all nodes."""
        nodes: list[node_pb2.Node] = self._objects.list(NODE)
        self._forget_gone(nodes)
        silent = {node.metadata.name for node in nodes if self._is_silent(node, now)}
        self._judge_disruption(nodes, silent, now)
        await _each(self._settle(node, node.metadata.name in silent) for node in nodes)
        nodes = self._objects.list(NODE)
        self._tell_changes(nodes)
        tainted = self._time_taints(nodes, now)
        if not (tainted or silent or self._marked):
            return
        pods = self._pods_by_node()
        await self._mark_pods(silent, pods)
        there = {pod.metadata.uid for name in silent for pod in pods.get(name, ())}
        self._lost = {uid: at for uid, at in self._lost.items() if uid in there}
        await _each(
            self._evict(pod, name, due <= now, name in silent, now)
            for name, taints in tainted.items()
            if not (self._disrupted and name in silent)
            for pod in pods.get(name, ())
            if (due := self._due(pod, name, taints)) is not None
        )

    def _is_silent(self, node: node_pb2.Node, now: float) -> bool:
        name = node.metadata.name
        if name not in self._first_seen:
            self._first_seen[name] = now
            self._marked.add(name)
        heard = self._sessions.last_seen(name)
        return now - max(self._first_seen[name], heard or 0.0) > self._grace

    def _forget_gone(self, nodes: Iterable[node_pb2.Node]) -> None:
        names = {node.metadata.name for node in nodes}
        for gone in self._first_seen.keys() - names:
            del self._first_seen[gone]
            self._ready.pop(gone, None)
            self._before.pop(gone, None)
            self._marked.discard(gone)

    def _judge_disruption(self, nodes: list[node_pb2.Node], silent: set[str], now: float) -> None:
        disrupted = lifecycle.is_disrupted(len(silent), len(nodes))
        if disrupted == self._disrupted:
            return
        self._disrupted = disrupted
        if not disrupted:
            self._tainted = dict.fromkeys(self._tainted, now)  # tolerations begin anew: nothing was counted on
        share = f"{len(silent)} of {len(nodes)} nodes are silent"
        words = (
            ("Warning", "EvictionsStopped", f"{share}: no pods are evicted from silent nodes until most are back")
            if disrupted
            else ("Normal", "EvictionsResumed", f"{share}: pods are evicted from silent nodes again")
        )
        log.warning("%s", words[2])
        for node in nodes:
            self._recorder.record(About.of(node), *words)

    async def _settle(self, node: node_pb2.Node, silent: bool) -> None:
        """Conditions, then the taints that follow from them."""
        name, wall = node.metadata.name, self._clock()
        if silent and lifecycle.mark_silent(copy_of(node), wall):
            self._before[name] = [copy_of(each) for each in node.status.conditions if each.status != "Unknown"]
            node = await self._change(node, lambda n: lifecycle.mark_silent(n, wall), status=True)
        elif not silent and name in self._before:
            before = self._before.pop(name)
            node = await self._change(node, lambda n: lifecycle.restore(n, before, wall), status=True)
        if lifecycle.set_taints(copy_of(node), wall):
            await self._change(node, lambda n: lifecycle.set_taints(n, wall), status=False)

    async def _change(self, node: node_pb2.Node, change: Callable[[Any], bool], *, status: bool) -> Any:
        name, uid = node.metadata.name, node.metadata.uid
        return await self._objects.mutate(NODE, "", name, change, status=status, uid=uid)

    def _tell_changes(self, nodes: Iterable[node_pb2.Node]) -> None:
        for node in nodes:
            name, ready = node.metadata.name, lifecycle.ready(node) == "True"
            if self._ready.get(name, ready) != ready:
                reason = "NodeReady" if ready else "NodeNotReady"
                self._recorder.record(About.of(node), "Normal", reason, f"Node {name} status is now: {reason}")
            self._ready[name] = ready

    def _time_taints(self, nodes: Iterable[node_pb2.Node], now: float) -> dict[str, list[node_pb2.Taint]]:
        """The nodes with NoExecute taints; notes since when."""
        found = {node.metadata.name: lifecycle.evicting_taints(node) for node in nodes}
        tainted = {name: taints for name, taints in found.items() if taints}
        there = [(name, taint.key) for name, taints in tainted.items() for taint in taints]
        self._tainted = {each: self._tainted.get(each, now) for each in there}
        return tainted

    def _pods_by_node(self) -> _Pods:
        pods: defaultdict[str, list[pod_pb2.Pod]] = defaultdict(list)
        for pod in self._objects.list(POD):
            if pod.spec.nodeName and not is_finished(pod):
                pods[pod.spec.nodeName].append(pod)
        return pods

    async def _mark_pods(self, silent: set[str], pods: _Pods) -> None:
        """Pods of silent nodes are not known to be ready; those of nodes that are heard again are as they were."""
        back = [name for name in self._marked if name not in silent and self._sessions.last_seen(name) is not None]
        self._marked |= silent
        await _each(
            [
                *(self._mark(pod, name) for name in silent for pod in pods.get(name, ())),
                *(self._unmark(pod) for name in back for pod in pods.get(name, ())),
            ]
        )
        self._marked.difference_update(back)

    async def _mark(self, pod: pod_pb2.Pod, node: str) -> None:
        wall = self._clock()
        if lifecycle.mark_unknown(copy_of(pod), node, wall):
            await self._change_pod(pod, lambda p: lifecycle.mark_unknown(p, node, wall))
            self._recorder.record(About.of(pod), "Warning", "NodeNotReady", "Node is not ready")

    async def _unmark(self, pod: pod_pb2.Pod) -> None:
        wall = self._clock()
        if lifecycle.unmark_unknown(copy_of(pod), wall):
            await self._change_pod(pod, lambda p: lifecycle.unmark_unknown(p, wall))

    async def _change_pod(self, pod: pod_pb2.Pod, change: Callable[[Any], bool]) -> None:
        await self._objects.mutate(POD, *key_of(pod), change, status=True, uid=pod.metadata.uid)

    def _due(self, pod: pod_pb2.Pod, node: str, taints: list[node_pb2.Taint]) -> float | None:
        return lifecycle.eviction_due(pod, taints, {taint.key: self._tainted[node, taint.key] for taint in taints})

    async def _evict(self, pod: pod_pb2.Pod, node: str, due: bool, silent: bool, now: float) -> None:
        """Take a pod off a node whose taint it tolerates no longer."""
        uid = pod.metadata.uid
        if not due:
            return
        if not silent:
            if not is_terminating(pod):
                self._say_evicted(pod)
                await self._objects.delete(POD, *key_of(pod), uid=uid)
            return
        if uid not in self._lost:
            self._lost[uid] = now + LOST_SHOWN
            await self._change_pod(pod, lambda p: lifecycle.mark_lost(p, node))
            await self._objects.delete(POD, *key_of(pod), uid=uid, grace=LOST_SHOWN)
            self._say_evicted(pod)
        elif now >= self._lost[uid]:
            # The node cannot confirm it. Its agent stops what it still runs when it is back and finds no such pod.
            await self._objects.delete(POD, *key_of(pod), uid=uid, grace=0)
            del self._lost[uid]

    def _say_evicted(self, pod: pod_pb2.Pod) -> None:
        name = f"{pod.metadata.namespace}/{pod.metadata.name}"
        self._recorder.record(About.of(pod), "Normal", "TaintManagerEviction", f"Marking for deletion Pod {name}")


async def _each(calls: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all; one that fails is tried again at the next look, and does not keep the others."""
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, NotFound | Conflict):
            log.debug("changed meanwhile: %s", result)
        elif isinstance(result, PodplaneError):
            log.warning("cannot write, trying again: %s", result)
        elif isinstance(result, BaseException):
            raise result
