"""The agent's one connection to the control plane: opened by the agent, opened again whenever it ends (D5).

    connect ─► Hello ─► Welcome ─► Snapshot ─► deltas, heartbeats both ways, statuses up ─► its end ─► back-off ─► ...

Owns the channel and the stream. Never decides what a frame means: the Receiver does. A session that is silent for four
heartbeats is given up. Fails only with SessionRefused: the control plane does not want this agent back.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Any, Protocol

import grpc
import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from nodeagent.certificates import Identity
from nodeagent.pods.outbox import Outbox
from podplane.tls import CHANNEL_OPTIONS, node_channel_credentials
from podplane.v1.session_pb2 import AgentFrame, AgentFrames, ControlFrame, Digest, Heartbeat, Hello

log = logging.getLogger(__name__)

CONNECT = "/podplane.v1.NodeSessions/Connect"
MAX_BACK_OFF = 5.0
WELCOME_DEADLINE = 10.0
SILENT_BEATS = 4


class SessionRefused(Exception):
    """The control plane ended the session and said not to come back."""


class SessionLost(Exception):
    """The session ended; the next one may succeed."""


class Receiver(Protocol):
    """What takes frames in, in order."""

    def hello(self) -> Hello: ...

    def digest(self) -> Digest | None: ...

    async def receive(self, frame: ControlFrame) -> None: ...

    def connected(self, channel: grpc.aio.Channel | None) -> None: ...


class Session:
    """Keeps one stream to the control plane open until cancelled."""

    def __init__(self, identity: Callable[[], Identity], outbox: Outbox, receiver: Receiver) -> None:
        self._identity = identity
        self._outbox = outbox
        self._receiver = receiver
        self._heartbeat = 3.0
        self._heard = 0.0
        self._turn = asyncio.Lock()
        """gRPC takes one write at a time."""

    async def run(self) -> None:
        """Connect again and again. Raises SessionRefused."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await self._once()
            except (SessionLost, grpc.RpcError, OSError, ValueError) as error:
                log.warning("session with %s ended: %s", self._identity().address, _words(error))
            failures = 0 if time.monotonic() - began > MAX_BACK_OFF else failures + 1
            wait = min(MAX_BACK_OFF, 0.2 * 2 ** min(failures, 6))
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))

    async def _once(self) -> None:
        identity = self._identity()
        credentials = node_channel_credentials(identity.authority, identity.certificate, identity.key)
        options = [*CHANNEL_OPTIONS, ("grpc.max_reconnect_backoff_ms", 2000)]
        async with grpc.aio.secure_channel(identity.address, credentials, options=options) as channel:
            call: Any = channel.stream_stream(
                CONNECT,
                request_serializer=AgentFrame.SerializeToString,
                response_deserializer=ControlFrame.FromString,
            )()
            try:
                await self._converse(channel, call)
            finally:
                self._receiver.connected(None)
                call.cancel()

    async def _converse(self, channel: grpc.aio.Channel, call: Any) -> None:
        async with asyncio.timeout(WELCOME_DEADLINE):
            await call.write(AgentFrame(hello=self._receiver.hello()))
            welcome = await self._read(call)
        if welcome.HasField("goodbye"):
            self._goodbye(welcome)
        if not welcome.HasField("welcome"):
            raise SessionLost(f"the control plane answered Hello with {welcome.WhichOneof('frame')}")
        self._heartbeat = float(welcome.welcome.heartbeatSeconds or 3)
        self._heard = time.monotonic()
        self._outbox.reconnected()
        self._receiver.connected(channel)
        await self._receiver.receive(welcome)
        log.info("session open", extra={"address": self._identity().address})
        await _first_ended(self._reading(call), self._writing(call), self._beating(call), self._listening())

    async def _read(self, call: Any) -> ControlFrame:
        frame = await call.read()
        if frame is grpc.aio.EOF:
            raise await _lost(call)
        assert isinstance(frame, ControlFrame)
        return frame

    async def _reading(self, call: Any) -> None:
        while True:
            frame = await self._read(call)
            self._heard = time.monotonic()
            if frame.HasField("goodbye"):
                self._goodbye(frame)
            await self._receiver.receive(frame)

    async def _writing(self, call: Any) -> None:
        while True:
            await self._write(call, await self._outbox.next())

    async def _write(self, call: Any, frame: AgentFrame) -> None:
        async with self._turn:
            try:
                await call.write(frame)
            except asyncio.InvalidStateError:  # what gRPC says to a write after the stream's end
                raise await _lost(call) from None

    async def _beating(self, call: Any) -> None:
        while True:
            stamp = Timestamp()
            stamp.GetCurrentTime()
            beat = AgentFrame(heartbeat=Heartbeat(sentAt=stamp))
            if (digest := self._receiver.digest()) is not None:
                beat = AgentFrame(batch=AgentFrames(frames=[beat, AgentFrame(digest=digest)]))
            await self._write(call, beat)
            await asyncio.sleep(self._heartbeat)

    async def _listening(self) -> None:
        """End a session in which nothing is heard any more: the peer's machine may be gone without a word."""
        while True:
            left = self._heard + SILENT_BEATS * self._heartbeat - time.monotonic()
            if left <= 0:
                raise SessionLost(f"nothing heard for {SILENT_BEATS * self._heartbeat:.0f} s")
            await asyncio.sleep(left)

    def _goodbye(self, frame: ControlFrame) -> None:
        if frame.goodbye.reconnect:
            raise SessionLost(f"the control plane said goodbye: {frame.goodbye.reason}")
        raise SessionRefused(f"the control plane refuses this agent: {frame.goodbye.reason}")


async def _lost(call: Any) -> SessionLost:
    """In the words of the stream's end."""
    status = await call.code()
    return SessionLost(f"{status.name}: {await call.details()}")


async def _first_ended(*work: Any) -> None:
    """Run all until the first one raises; raise that, with the others cancelled and ended."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


def _words(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) or type(error).__name__
