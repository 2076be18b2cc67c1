"""Pod statuses from agents into the store: each transition its own write, in the order of its sequence.

Owns, per pod uid, the last sequence taken and the reports that wait; pods do not wait for one another. A report of
an older sequence of the same agent instance is dropped, so that no watcher sees a status go backwards. A report
for a pod that is gone is told to `on_gone`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from controlplane.nodes.statuses import merge_pod_status
from controlplane.objects import Objects
from podplane.errors import Conflict, Invalid, NotFound, PodplaneError
from podplane.kinds import POD
from podplane.tasks import Tasks
from podplane.v1 import pod_pb2, session_pb2

logger = logging.getLogger(__name__)

Report = session_pb2.PodStatusReport

WAITING = 64
"""Reports of one pod that may wait for the store; agents queue 16."""


@dataclass(slots=True)
class _Line:
    """The reports of one pod."""

    instance: str
    sequence: int
    waiting: deque[tuple[str, Report]] = field(default_factory=deque)
    busy: bool = False


class Reports:
    """Takes the reports of all sessions."""

    def __init__(self, objects: Objects, tasks: Tasks, on_gone: Callable[[str, Report], None]) -> None:
        self._objects = objects
        self._tasks = tasks
        self._on_gone = on_gone
        self._lines: dict[str, _Line] = {}
        self._removed: set[str] = set()

    def take(self, node: str, instance: str, report: Report) -> None:
        """Queue a report of `node`'s agent; returns at once."""
        instance = f"{node} {instance}"  # sequences of one node say nothing about another's
        line = self._lines.setdefault(report.uid, _Line(instance, -1))
        if line.instance == instance and report.sequence <= line.sequence and not report.terminated:
            return
        line.instance, line.sequence = instance, report.sequence
        line.waiting.append((node, report))
        if len(line.waiting) > WAITING:
            del line.waiting[0]  # the store is slow or the agent floods: what is newer says more
        if not line.busy:
            line.busy = True
            self._tasks.spawn(self._drain(report.uid, line), name=f"pod-status/{report.uid}")

    def forget(self, uid: str) -> None:
        """The pod is gone from the store: its sequence need not be known any more, once nothing waits."""
        line = self._lines.get(uid)
        if line is not None and line.busy:
            self._removed.add(uid)
            return
        self._lines.pop(uid, None)
        self._removed.discard(uid)

    async def _drain(self, uid: str, line: _Line) -> None:
        while line.waiting:
            node, report = line.waiting.popleft()
            try:
                await self._write(node, report)
            except PodplaneError as error:
                # The agent's next report or its next connection says it again.
                logger.warning("cannot store a pod's status", extra={"pod": report.name, "uid": uid, "error": error})
        line.busy = False
        if uid in self._removed:
            self.forget(uid)

    async def _write(self, node: str, report: Report) -> None:
        def change(pod: pod_pb2.Pod) -> bool:
            return merge_pod_status(pod, node, report.status)

        address = (report.namespace, report.name)
        try:
            pod = await self._objects.mutate(POD, *address, change, status=True, uid=report.uid)
        except (NotFound, Conflict):
            if not self._is_there(report):
                self._removed.add(report.uid)
                self._on_gone(node, report)
                return
            raise
        except Invalid as refusal:
            # Whatever else it says, that the processes have ended is heard.
            logger.warning("a pod's status cannot be", extra={"pod": report.name, "node": node, "error": refusal})
            pod = self._objects.get(POD, *address)
        if report.terminated and pod.spec.nodeName == node and pod.metadata.HasField("deletionTimestamp"):
            await self._objects.remove(POD, *address, report.uid)

    def _is_there(self, report: Report) -> bool:
        stored = self._objects.cache.get(POD, report.namespace, report.name)
        return stored is not None and stored.obj.metadata.uid == report.uid
