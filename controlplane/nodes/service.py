"""The services that agents call: Bootstrap.Join, and NodeSessions.Connect, Attach and Renew.

Owns the incoming half of a session: it reads the agent's frames and hands each to who stores it. A node is who its
certificate says; what a frame claims beyond that is refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

from controlplane.api.grpc_server import Behaviour, Call
from controlplane.nodes import Sessions, frames
from controlplane.nodes.session import Session
from controlplane.pki import Authority
from controlplane.store.log import Log
from podplane import names
from podplane.errors import AlreadyExists, Forbidden, Invalid, PodplaneError, Unavailable
from podplane.v1 import event_pb2, node_pb2, session_pb2

logger = logging.getLogger(__name__)

HELLO_SECONDS = 10.0
RESYNC_SECONDS = 30.0
"""The least time between two snapshots that differing digests bring: a lasting difference must not flood the node."""
_EVENTS = 256
"""Events of one session that may wait for the store; those beyond are dropped, and counted in the log."""

Incoming = AsyncIterator[session_pb2.AgentFrame]


class NodeService:
    """Bootstrap and NodeSessions."""

    def __init__(self, sessions: Sessions, authority: Authority, log: Log, node_port: Callable[[], int]) -> None:
        self._sessions = sessions
        self._authority = authority
        self._log = log
        self._node_port = node_port

    def bootstrap(self) -> dict[str, Behaviour]:
        """Bootstrap's methods by name."""
        return {"Join": self.join}

    def node_sessions(self) -> dict[str, Behaviour]:
        """NodeSessions' methods by name."""
        return {"Connect": self.connect, "Attach": self.attach, "Renew": self.renew}

    async def join(self, request: session_pb2.JoinRequest, _call: Call) -> session_pb2.JoinResponse:
        """A certificate for a new node, or for one that lost its own; not under the name of a live one."""
        node = request.nodeName
        if wrong := names.dns_subdomain(node):
            raise Invalid(f'nodeName: "{node}": {"; ".join(wrong)}')
        if node in self._sessions.connected():
            raise AlreadyExists(f"a node named {node} is connected: choose another name, or stop its agent first")
        return self._signed(request, node)

    async def renew(self, request: session_pb2.JoinRequest, call: Call) -> session_pb2.JoinResponse:
        """A new certificate for the node that calls."""
        if request.nodeName and request.nodeName != call.identity.node:
            raise Forbidden(f"{call.identity.username} cannot renew the certificate of another node")
        return self._signed(request, call.identity.node)

    def _signed(self, request: session_pb2.JoinRequest, node: str) -> session_pb2.JoinResponse:
        certificate = self._authority.sign_node(request.certificateSigningRequest, node)
        logger.info("signed a node's certificate", extra={"node": node})
        return session_pb2.JoinResponse(
            certificate=certificate,
            certificateAuthority=self._authority.certificate.decode(),
            sessionAddress=f":{self._node_port()}",
            clusterID=self._log.cluster_id,
        )

    async def attach(
        self, requests: AsyncIterator[session_pb2.AgentStreamFrame], call: Call
    ) -> AsyncIterator[session_pb2.ControlStreamFrame]:
        async for frame in self._sessions.streams.attach(call.identity.node, requests):
            yield frame

    async def connect(self, requests: Incoming, call: Call) -> AsyncIterator[bytes]:
        """One session from hello to its end."""
        node, hello = call.identity.node, await _hello(requests)
        if hello.nodeName != node:
            raise Forbidden(f'the certificate is of node "{node}", but the agent says "{hello.nodeName}"')
        try:
            session = self._sessions.enter(node, hello)
        except AlreadyExists as refusal:
            yield frames.goodbye(str(refusal), reconnect=True)
            raise
        reader = asyncio.create_task(self._read(session, requests), name=f"session/{node}")
        logger.info("a node has connected", extra={"node": node, "instance": hello.instanceID})
        try:
            yield await self._welcome(node, hello.podCIDR)
            await self._judge(session, hello)
            async for frame in session.outgoing(self._sessions.settings.heartbeat, self._sessions.settings.grace):
                yield frame
        finally:
            self._sessions.leave(session)
            reader.cancel()
            logger.info("a node's session has ended", extra={"node": node, "instance": hello.instanceID})

    async def _welcome(self, node: str, held: str) -> bytes:
        settings = self._sessions.settings
        registered = await self._sessions.registrar.ensure(node, held)
        welcome = session_pb2.Welcome(
            clusterID=self._log.cluster_id,
            epoch=self._log.epoch,
            podCIDR=registered.spec.podCIDR,
            serviceCIDR=str(settings.service_cidr),
            clusterCIDR=str(settings.cluster_cidr),
            heartbeatSeconds=settings.heartbeat,
        )
        return session_pb2.ControlFrame(welcome=welcome).SerializeToString()

    async def _judge(self, session: Session, hello: session_pb2.Hello) -> None:
        kept = self._sessions.judge(session, hello, self._log.cluster_id, self._log.epoch)
        if kept:
            named = " ".join(f"{pod.namespace}/{pod.name}" for pod in hello.pods if pod.uid in kept)
            message = (
                f"{len(kept)} pods of the node are not in the store and are kept: {named[:800]}; "
                "`podplane-nodeagent cleanup` on the node removes them"
            )
            logger.warning(message, extra={"node": session.node})
            await self._sessions.recorder.node_warning(session.node, "UnknownPodsKept", message)

    async def _read(self, session: Session, requests: Incoming) -> None:
        """Take the agent's frames in until it is done; whatever goes wrong ends the session."""
        reader = _Reader(self._sessions, session)
        try:
            async with asyncio.TaskGroup() as group:
                writers = [group.create_task(reader.store_nodes()), group.create_task(reader.store_events())]
                async for frame in requests:
                    if not self._sessions.is_current(session):
                        break
                    self._sessions.heard(session)
                    reader.take(frame)
                for writer in writers:
                    writer.cancel()
            session.end(Unavailable("the agent has ended its half of the session"))
        except* PodplaneError as errors:
            first = errors.exceptions[0]
            session.end(first if isinstance(first, PodplaneError) else Unavailable(str(first)))
        except* Exception as errors:
            logger.error("cannot go on with a session", exc_info=errors, extra={"node": session.node})
            session.end(Unavailable("the control plane failed to take a frame in; its log says more"))


class _Reader:
    """Hands one session's frames to who stores them. Node reports and events wait in bounded queues of their own."""

    def __init__(self, sessions: Sessions, session: Session) -> None:
        self._sessions = sessions
        self._session = session
        self._nodes: asyncio.Queue[node_pb2.Node] = asyncio.Queue(16)
        self._events: asyncio.Queue[event_pb2.Event] = asyncio.Queue(_EVENTS)
        self._dropped = 0
        self._next_resync = 0.0
        self._proxy_error = ""

    def take(self, frame: session_pb2.AgentFrame) -> None:
        """One frame; never waits."""
        session, kind = self._session, frame.WhichOneof("frame")
        if kind == "batch":
            for each in frame.batch.frames:
                if each.HasField("batch"):
                    raise Invalid("a session does not carry a batch in a batch")
                self.take(each)
        elif kind == "podStatus":
            self._sessions.reports.take(session.node, session.instance, frame.podStatus)
        elif kind == "node":
            self._node(frame.node)
        elif kind == "acknowledge":
            session.acknowledged = max(session.acknowledged, frame.acknowledge.revision)
        elif kind == "event":
            self._event(frame.event)
        elif kind == "digest":
            self._digest(frame.digest)
        elif kind == "gone":
            session.forget(frame.gone.uid)
        elif kind == "streamRefused":
            self._sessions.streams.refused(session.node, frame.streamRefused)
        elif kind == "proxy":
            self._proxy(frame.proxy)
        elif kind != "heartbeat":
            raise Invalid(f"a session does not carry {kind or 'an empty frame'} after hello")

    def _node(self, reported: node_pb2.Node) -> None:
        if self._nodes.full():
            # The oldest goes: a later report says all that it said.
            self._nodes.get_nowait()
        self._nodes.put_nowait(reported)

    def _event(self, event: event_pb2.Event) -> None:
        if self._events.full():
            self._dropped += 1
            if self._dropped in (1, 100) or self._dropped % 1000 == 0:
                fields = {"node": self._session.node, "dropped": self._dropped}
                logger.warning("events come faster than the store takes them", extra=fields)
            return
        self._events.put_nowait(event)

    def _digest(self, said: session_pb2.Digest) -> None:
        session, now = self._session, asyncio.get_running_loop().time()
        if now < self._next_resync or not session.settled():
            return
        wrong = [
            what
            for what, theirs, ours in (
                ("pods", said.pods, session.pods_digest),
                ("services", said.services, self._sessions.hub.services_digest),
            )
            if theirs and theirs != ours()
        ]
        if wrong:
            logger.warning("a node holds something else: it gets a snapshot", extra={"node": session.node, "of": wrong})
            self._next_resync = now + RESYNC_SECONDS
            session.resync()

    def _proxy(self, report: session_pb2.ProxyReport) -> None:
        self._sessions.hub.programmed(self._session.node, report.programmedRevision, report.frozen)
        if report.error and report.error != self._proxy_error:
            fields = {"node": self._session.node, "mode": report.mode, "error": report.error}
            logger.warning("a node cannot program its service rules", extra=fields)
        self._proxy_error = report.error

    async def store_nodes(self) -> None:
        """Node reports, in order."""
        while True:
            await self._sessions.registrar.report(self._session.node, await self._nodes.get())

    async def store_events(self) -> None:
        """Events, in order; those that are there together are written together."""
        while True:
            events = [await self._events.get()]
            while not self._events.empty():
                events.append(self._events.get_nowait())
            await self._sessions.recorder.record_all(events, self._session.node)


async def _hello(requests: Incoming) -> session_pb2.Hello:
    try:
        async with asyncio.timeout(HELLO_SECONDS):
            first = await anext(aiter(requests), None)
    except TimeoutError:
        raise Invalid(f"a session begins with hello, which did not come within {HELLO_SECONDS:.0f} s") from None
    if first is None or not first.HasField("hello"):
        raise Invalid("a session begins with hello")
    return first.hello
