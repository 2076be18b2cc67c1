"""Agent sessions: who is connected, what each is told, what each reports. START HERE for the node side.

store ─► Hub ─► Session ─► agent        (hub.py, session.py: snapshot, then deltas)
agent ─► NodeService ─► Reports, Registrar, Recorder ─► store        (service.py)
caller ─► Sessions.open_stream ─► agent dials Attach ─► Streams      (streams.py)
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass

from controlplane.nodes.frames import goodbye, verdict
from controlplane.nodes.hub import Hub
from controlplane.nodes.recording import Recorder
from controlplane.nodes.registrar import Registrar
from controlplane.nodes.reports import Reports
from controlplane.nodes.session import Session
from controlplane.nodes.streams import Streams
from controlplane.objects import Objects
from podplane.errors import AlreadyExists, Conflict, Unavailable
from podplane.tasks import Tasks
from podplane.v1 import session_pb2

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Times in seconds. A session whose agent is silent for `grace` ends."""

    heartbeat: int
    grace: int
    cluster_cidr: ipaddress.IPv4Network
    service_cidr: ipaddress.IPv4Network


class Sessions:
    """The live sessions by node, at most one each, and what they share."""

    def __init__(self, objects: Objects, settings: NodeSettings, tasks: Tasks) -> None:
        self.objects = objects
        self.settings = settings
        self.registrar = Registrar(objects, settings.cluster_cidr)
        self.recorder = Recorder(objects)
        self.reports = Reports(objects, tasks, self._gone)
        self.streams = Streams()
        self.on_heartbeat: list[Callable[[str], None]] = []
        """Called with the node's name whenever its agent has spoken."""
        self._sessions: dict[str, Session] = {}
        self._last_seen: dict[str, float] = {}
        self.hub = Hub(objects.cache, self._sessions, self.reports.forget, self._alive)

    async def run(self) -> None:
        """Route changes to the sessions, until cancelled."""
        await self.hub.run()

    def connected(self) -> set[str]:
        """The nodes with a live session."""
        return set(self._sessions)

    def _alive(self) -> list[str]:
        """The nodes that were heard of within the grace period."""
        since = asyncio.get_running_loop().time() - self.settings.grace
        return [name for name, at in self._last_seen.items() if at >= since]

    def last_seen(self, name: str) -> float | None:
        """When the node's agent last spoke, on the loop's clock; None: not since this process began."""
        return self._last_seen.get(name)

    def open_stream(
        self,
        node: str,
        request: session_pb2.OpenStream,
        inbound: AsyncIterator[session_pb2.ControlStreamFrame] | None = None,
    ) -> AsyncGenerator[session_pb2.AgentStreamFrame]:
        """A reverse stream from `node`; Unavailable where it is not connected or does not answer."""
        session = self._sessions.get(node)
        if session is None:
            raise Unavailable(f"node {node} is not connected")
        return self.streams.open(node, request, session.control, inbound)

    async def ask(self, node: str, request: session_pb2.OpenStream, seconds: float) -> session_pb2.AgentStreamFrame:
        """The one frame that a node has to say to a question; Unavailable where it is not connected or too slow."""
        try:
            async with (
                asyncio.timeout(seconds),
                contextlib.aclosing(self.open_stream(node, request)) as frames,
            ):
                async for frame in frames:
                    return frame
        except TimeoutError:
            raise Unavailable(f"no answer within {seconds:g} s") from None
        raise Unavailable("the node had nothing to say")

    def enter(self, node: str, hello: session_pb2.Hello) -> Session:
        """The session of an agent that has said hello. The first agent of a name that still answers wins."""
        now = asyncio.get_running_loop().time()
        other = self._sessions.get(node)
        if other is not None:
            if other.instance != hello.instanceID and now - other.last_seen < 2 * self.settings.heartbeat:
                raise AlreadyExists(
                    f"another agent is connected as {node} and answers: "
                    "two machines must not have one node name; stop one of them"
                )
            other.control(goodbye("a newer session has begun", reconnect=False))
            other.end(Conflict("a newer session of this node has begun"))
        session = Session(node, hello.instanceID, self.objects.cache, self.hub.placement, now)
        self._sessions[node] = session
        self.heard(session)
        self.hub.entered(session)
        return session

    def is_current(self, session: Session) -> bool:
        """False for a session that a newer one of its node has superseded: what it still says is stale."""
        return self._sessions.get(session.node) is session

    def leave(self, session: Session) -> None:
        """The session is over."""
        if self.is_current(session):
            del self._sessions[session.node]

    def heard(self, session: Session) -> None:
        """The agent has spoken."""
        session.last_seen = self._last_seen[session.node] = asyncio.get_running_loop().time()
        for hook in self.on_heartbeat:
            hook(session.node)

    def judge(self, session: Session, hello: session_pb2.Hello, cluster_id: str, epoch: str) -> list[str]:
        """Decide, for each pod of the hello that the store does not have on this node, what becomes of it.

        Gives the session its verdicts and returns the uids that are kept. Absence removes a pod only where this
        store is the one that the agent knew, and not older than what the agent has seen of it (D5).
        """
        current = hello.lastRevision <= self.objects.cache.revision
        here = self.hub.placement.pods(session.node)
        for pod in hello.pods:
            if pod.uid in here:
                continue
            # A pod keeps the mark of the store that bound it: a store that took its place must not remove it at the
            # agent's second hello either, when the agent has learned the new one's name.
            bound_by = (pod.clusterID or hello.clusterID, pod.epoch or hello.epoch)
            if current and bound_by == (cluster_id, epoch):
                session.decide(pod.uid, verdict(pod.uid, False, "the pod is no longer in the cluster"))
                continue
            session.kept.add(pod.uid)
            reason = "the store does not know this pod, and is not the one that the node knew, or is older"
            session.decide(pod.uid, verdict(pod.uid, True, reason))
        return sorted(session.kept)

    def _gone(self, node: str, report: session_pb2.PodStatusReport) -> None:
        """A report for a pod that does not exist: the agent has not heard, or was told to keep it."""
        session = self._sessions.get(node)
        if session is None or report.uid in session.kept or report.terminated:
            return
        unbind = session_pb2.Unbind(namespace=report.namespace, name=report.name, uid=report.uid, gracePeriodSeconds=0)
        session.control(session_pb2.ControlFrame(unbind=unbind).SerializeToString())
