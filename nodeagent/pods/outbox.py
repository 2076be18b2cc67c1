"""What the node has to say to the control plane and has not said yet.

Statuses: every transition of a pod in order while the session keeps up, at most 16 queued a pod; beyond that, and
after a reconnect, only the newest. Events: the oldest are dropped beyond a bound. Everything else: the newest.
What can wait (events, acknowledgements) goes with what cannot, a moment later at the latest: a message costs more than
what is in it. Owns sequence numbers. Never opens a connection: session.py takes frames from here.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from nodeagent.pods.clock import Clock
from nodeagent.pods.effects import Tell
from nodeagent.pods.recorder import Recorder, about_node, about_pod, about_service
from nodeagent.pods.state import PodState
from nodeagent.pods.tools import NodeFacts, Reports
from nodeagent.proxy.complaints import Complaint
from podplane.v1.node_pb2 import Node
from podplane.v1.pod_pb2 import Pod, PodStatus
from podplane.v1.reference_pb2 import ObjectReference
from podplane.v1.service_pb2 import Service
from podplane.v1.session_pb2 import (
    Acknowledge,
    AgentFrame,
    AgentFrames,
    PodGone,
    PodStatusReport,
    ProxyReport,
    StreamRefused,
)

log = logging.getLogger(__name__)

QUEUED_A_POD = 16
QUEUED_EVENTS = 1000
TOGETHER = 64
"""Frames in one message."""
PATIENCE = 0.05
"""Seconds for which what can wait waits for something to go with."""


@dataclass(slots=True)
class _Line:
    """One pod's reports: those that wait, and the newest, sent or not."""

    newest: PodStatusReport
    waiting: deque[PodStatusReport] = field(default_factory=deque)


class Outbox(Reports):
    """Everything that is to be sent, in an order that starves nobody."""

    def __init__(self, facts: NodeFacts, clock: Clock) -> None:
        self._node_name = facts.name
        self._recorder = Recorder(facts.name, clock)
        self._sequence = 0
        self._lines: dict[str, _Line] = {}
        self._turns: deque[str] = deque()
        self._others: deque[AgentFrame] = deque()
        self._events: deque[AgentFrame] = deque(maxlen=QUEUED_EVENTS)
        self._node: Node | None = None
        self._proxy: ProxyReport | None = None
        self._acknowledged = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._patience: asyncio.TimerHandle | None = None
        self._due = False

    # ── what workers and the agent say ───────────────────────────────────────────────────────────────────────

    def status(self, state: PodState, status: PodStatus) -> None:
        self._report(state, status, terminated=False)

    def gone(self, state: PodState, status: PodStatus) -> None:
        self._report(state, status, terminated=True)

    def event(self, pod: Pod, tell: Tell) -> None:
        self._tell(about_pod(pod), tell)

    def node_event(self, reason: str, message: str) -> None:
        """A Warning about the node."""
        self._tell(about_node(self._node_name), Tell("Warning", reason, message))

    def service_event(self, service: Service, complaint: Complaint) -> None:
        """A Warning about a service that this node cannot program."""
        message = f"on node {self._node_name}: {complaint.message}"
        self._tell(about_service(service), Tell("Warning", complaint.reason, message))

    def _tell(self, about: ObjectReference, tell: Tell) -> None:
        self._events.append(AgentFrame(event=self._recorder.event(about, tell)))
        self._wait()

    def node(self, node: Node) -> None:
        """The node's whole status."""
        self._node = node
        self._wake.set()

    def proxy(self, report: ProxyReport) -> None:
        """How far the service rules are: pods that end may wait for it."""
        self._proxy = report
        self._wake.set()

    def acknowledge(self, revision: int) -> None:
        """Deltas up to `revision` are taken in."""
        self._acknowledged = max(self._acknowledged, revision)
        self._wait()

    def forgotten(self, uid: str) -> None:
        """The pod's last trace is gone: say so, and nothing about it any more."""
        self._lines.pop(uid, None)
        self._recorder.forget(uid)
        self._say(AgentFrame(gone=PodGone(uid=uid)))

    def stream_refused(self, id_: str, code: str, reason: str) -> None:
        self._say(AgentFrame(streamRefused=StreamRefused(id=id_, code=code, reason=reason)))

    def _say(self, frame: AgentFrame) -> None:
        self._others.append(frame)
        self._wake.set()

    def _report(self, state: PodState, status: PodStatus, *, terminated: bool) -> None:
        metadata = state.pod.metadata
        report = PodStatusReport(
            namespace=metadata.namespace,
            name=metadata.name,
            uid=state.uid,
            sequence=self._next_sequence(),
            status=status,
            terminated=terminated,
        )
        line = self._lines.setdefault(state.uid, _Line(report))
        line.newest = report
        line.waiting.append(report)
        if len(line.waiting) > QUEUED_A_POD:
            line.waiting = deque([report])
        if state.uid not in self._turns:
            self._turns.append(state.uid)
        self._wake.set()

    def _next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    @property
    def depth(self) -> int:
        """How many frames wait."""
        single = sum(waits is not None for waits in (self._node, self._proxy)) + bool(self._acknowledged)
        return single + len(self._others) + len(self._events) + sum(len(line.waiting) for line in self._lines.values())

    # ── what the session takes ───────────────────────────────────────────────────────────────────────────────

    def reconnected(self) -> None:
        """A new session: the newest status of every pod is to be said again, and nothing older."""
        self._acknowledged = 0
        for line in self._lines.values():
            # A new number: the control plane may have taken the old one without storing it.
            line.newest.sequence = self._next_sequence()
            line.waiting = deque([line.newest])
        self._turns = deque(self._lines)
        self._others = deque(frame for frame in self._others if not frame.HasField("streamRefused"))
        self._wake.set()

    async def next(self) -> AgentFrame:
        """What to send next: a frame, or several as a batch; waits for something."""
        while not (frames := self._take()):
            self._wake.clear()
            self._idle.set()
            await self._wake.wait()
        self._idle.clear()
        return frames[0] if len(frames) == 1 else AgentFrame(batch=AgentFrames(frames=frames))

    async def emptied(self, seconds: float) -> None:
        """Until everything is taken, at most so long: nobody may be there to take it."""
        self._idle.clear()
        self._hurry()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()

    def _wait(self) -> None:
        """There is something that can wait."""
        if self._patience is None and not self._due:
            self._patience = asyncio.get_running_loop().call_later(PATIENCE, self._hurry)

    def _hurry(self) -> None:
        self._due = True
        self._wake.set()

    def _take(self) -> list[AgentFrame]:
        """What is sent in one message: up to TOGETHER frames; none where there are only those that can wait yet."""
        frames = list(itertools.islice(self._urgent(), TOGETHER))
        if frames or self._due:
            frames += itertools.islice(self._patient(), TOGETHER - len(frames))
            self._due = bool(self._events or self._acknowledged)
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None
        return frames

    def _urgent(self) -> Iterator[AgentFrame]:
        if self._node is not None:
            node, self._node = self._node, None
            yield AgentFrame(node=node)
        while self._others:
            yield self._others.popleft()
        while (report := self._next_report()) is not None:
            yield AgentFrame(podStatus=report)
        if self._proxy is not None:
            proxy, self._proxy = self._proxy, None
            yield AgentFrame(proxy=proxy)

    def _patient(self) -> Iterator[AgentFrame]:
        while self._events:
            yield self._events.popleft()
        if self._acknowledged:
            revision, self._acknowledged = self._acknowledged, 0
            yield AgentFrame(acknowledge=Acknowledge(revision=revision))

    def _next_report(self) -> PodStatusReport | None:
        while self._turns:
            uid = self._turns.popleft()
            line = self._lines.get(uid)
            if line is None or not line.waiting:
                continue
            report = line.waiting.popleft()
            if line.waiting:
                self._turns.append(uid)
            return report
        return None
