"""Reverse streams: the control plane asks on the session, the agent opens Attach, both ends meet here (D5).

Owns the streams that wait and run. Bounded queues on both sides: a slow reader slows its own stream and nothing
else. Towards the agent at most WINDOW bytes are under way that it has not passed on: gRPC would take more, and then
the word that the caller has gone would wait behind them. Fails with Unavailable where the agent does not come in
time, or in the agent's own words.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field

from podplane.errors import GRPC_CODES, Forbidden, NotFound, PodplaneError, Unavailable
from podplane.v1 import session_pb2

OPEN_SECONDS = 10.0
WINDOW = 256 << 10
_QUEUE = 16

logger = logging.getLogger(__name__)

AgentFrame = session_pb2.AgentStreamFrame
ControlFrame = session_pb2.ControlStreamFrame

_ERRORS = {code: cls for cls, code in GRPC_CODES.items()}


class _Window:
    """Bytes of stdin or data that the agent has not passed on yet."""

    def __init__(self) -> None:
        self._under_way = 0
        self._room = asyncio.Event()

    async def enter(self, size: int) -> None:
        """Wait until there is room; what is larger than the whole window goes alone."""
        while self._under_way and self._under_way + size > WINDOW:
            self._room.clear()
            await self._room.wait()
        self._under_way += size

    def left(self, size: int) -> None:
        self._under_way = max(0, self._under_way - size)
        self._room.set()


@dataclass(slots=True, eq=False)
class _Stream:
    node: str
    window: _Window = field(default_factory=_Window)
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    incoming: asyncio.Queue[AgentFrame | PodplaneError | None] = field(default_factory=lambda: asyncio.Queue(_QUEUE))
    outgoing: asyncio.Queue[ControlFrame | None] = field(default_factory=lambda: asyncio.Queue(_QUEUE))
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    refused: PodplaneError | None = None


class Streams:
    """The reverse streams of all nodes."""

    def __init__(self) -> None:
        self._streams: dict[str, _Stream] = {}

    async def open(
        self,
        node: str,
        request: session_pb2.OpenStream,
        send: Callable[[bytes], None],
        inbound: AsyncIterator[ControlFrame] | None = None,
    ) -> AsyncGenerator[AgentFrame]:
        """Ask `node` by `send` for a stream and yield what it says; `inbound` is what the caller says to it."""
        identifier = secrets.token_hex(16)
        stream = self._streams[identifier] = _Stream(node)
        request.id = identifier
        send(session_pb2.ControlFrame(openStream=request).SerializeToString())
        feeder = asyncio.create_task(_feed(stream, inbound)) if inbound is not None else None
        try:
            await _opened(stream)
            while (frame := await stream.incoming.get()) is not None:
                if isinstance(frame, PodplaneError):
                    raise frame
                yield frame
        finally:
            stream.cancelled.set()
            self._streams.pop(identifier, None)
            # Makes room, so that a receiver that waits to put its last word can end.
            while not stream.incoming.empty():
                stream.incoming.get_nowait()
            if feeder is not None:
                feeder.cancel()
                feeder.add_done_callback(_fed)

    def refused(self, node: str, refusal: session_pb2.StreamRefused) -> None:
        """The agent cannot open a stream."""
        stream = self._streams.get(refusal.id)
        if stream is not None and stream.node == node:
            stream.refused = error_of(refusal)
            stream.opened.set()

    async def attach(self, node: str, requests: AsyncIterator[AgentFrame]) -> AsyncIterator[ControlFrame]:
        """The agent's end of a stream: NodeSessions.Attach."""
        first = await anext(aiter(requests), None)
        stream = self._streams.get(first.opened.id) if first is not None else None
        if stream is None:
            raise NotFound("nobody waits for this stream: its caller has gone")
        if stream.node != node or stream.opened.is_set():
            raise Forbidden("this stream was not asked of this node, or is open already")
        stream.opened.set()
        reader = asyncio.create_task(_receive(stream, requests))
        gone = asyncio.create_task(stream.cancelled.wait())
        try:
            async for frame in _outgoing(stream, reader, gone):
                yield frame
        finally:
            for task in (reader, gone):
                task.cancel()


async def _opened(stream: _Stream) -> None:
    try:
        async with asyncio.timeout(OPEN_SECONDS):
            await stream.opened.wait()
    except TimeoutError:
        raise Unavailable(f"node {stream.node} did not open the stream within {OPEN_SECONDS:.0f} s") from None
    if stream.refused is not None:
        raise stream.refused


async def _feed(stream: _Stream, inbound: AsyncIterator[ControlFrame]) -> None:
    try:
        async for frame in inbound:
            await stream.window.enter(len(frame.exec.stdin) + len(frame.portForward.data))
            await stream.outgoing.put(frame)
    except PodplaneError as error:
        await stream.incoming.put(error)


def _fed(feeder: asyncio.Task[None]) -> None:
    if not feeder.cancelled() and (error := feeder.exception()) is not None:
        # gRPC's own word that the caller has gone, which its handler hears by being cancelled.
        logger.debug("the caller of a stream said no more: %s", error)


async def _receive(stream: _Stream, requests: AsyncIterator[AgentFrame]) -> None:
    """The agent's frames into the queue; the last entry says how it ended."""
    end: PodplaneError | None = Unavailable(f"node {stream.node} broke the stream off")
    try:
        async for frame in requests:
            if frame.HasField("failed"):
                end = error_of(frame.failed)
                return
            if frame.HasField("taken"):
                stream.window.left(frame.taken)
                continue
            await stream.incoming.put(frame)
        end = None
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await stream.incoming.put(end)


async def _outgoing(
    stream: _Stream, reader: asyncio.Task[None], gone: asyncio.Task[bool]
) -> AsyncIterator[ControlFrame]:
    """What the caller says, until the agent is done or the caller has gone."""
    while not reader.done():
        frame = asyncio.create_task(stream.outgoing.get())
        done, _ = await asyncio.wait({frame, reader, gone}, return_when=asyncio.FIRST_COMPLETED)
        if frame in done:
            word = frame.result()
            if word is not None:
                yield word
            continue
        frame.cancel()
        if gone in done and not reader.done():
            yield ControlFrame(cancel=True)
            return


def error_of(refusal: session_pb2.StreamRefused) -> PodplaneError:
    """The agent's refusal as the caller shall see it."""
    return _ERRORS.get(refusal.code, Unavailable)(refusal.reason or "the node refused the stream without a reason")
