"""One reverse stream as the agent sees it: opened by the agent, then frames both ways until one side has ended.

Owns the gRPC call. What comes in is handed over at once and never waits: the control plane sends no more than a
window that `taken` moves on, so that a resize or the caller's end is heard while data is stuck. What goes out waits
for the caller to read. Fails, towards the caller, with the Refused that the work raises.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

import grpc.aio

from podplane.v1.session_pb2 import AgentStreamFrame, ControlStreamFrame, StreamOpened, StreamRefused

log = logging.getLogger(__name__)

ATTACH = "/podplane.v1.NodeSessions/Attach"
_LAST_WORDS = 5.0
"""Seconds for the control plane to acknowledge the end of a stream."""


class Refused(Exception):
    """A stream that cannot be had. code: a gRPC code by name."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Outgoing:
    """What the work of a stream may say."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._turn = asyncio.Lock()

    async def send(self, frame: AgentStreamFrame) -> None:
        """Send one frame; waits while the caller does not read. grpc.RpcError: the stream is over."""
        async with self._turn:  # gRPC takes one write at a time
            await self._call.write(frame)

    async def taken(self, size: int) -> None:
        """So many bytes of what came in have been passed on."""
        if size:
            await self.send(AgentStreamFrame(taken=size))


class Work(Protocol):
    """What a stream is for."""

    def received(self, frame: ControlStreamFrame) -> None:
        """Take in a frame of the caller's; returns at once. Refused ends the stream."""

    async def run(self, out: Outgoing) -> None:
        """Until the stream's end; cancelled where the caller goes away. Raises Refused."""


async def serve(channel: grpc.aio.Channel, identifier: str, work: Work) -> None:
    """One stream from its opening to its end. A stream that breaks is logged: it disturbs nothing else."""
    call: Any = channel.stream_stream(
        ATTACH,
        request_serializer=AgentStreamFrame.SerializeToString,
        response_deserializer=ControlStreamFrame.FromString,
    )()
    try:
        await call.write(AgentStreamFrame(opened=StreamOpened(id=identifier)))
        await _both(call, work)
    except (grpc.RpcError, asyncio.InvalidStateError) as error:
        # InvalidStateError is what gRPC says to a write after the stream's end.
        log.info("stream %s ended: %s", identifier, error)
    finally:
        call.cancel()


async def _both(call: Any, work: Work) -> None:
    out = Outgoing(call)
    reader = asyncio.ensure_future(_read(call, work))
    worker = asyncio.ensure_future(work.run(out))
    try:
        await asyncio.wait({reader, worker}, return_when=asyncio.FIRST_COMPLETED)
        if worker.done():
            await _finish(call, out, reader, worker.exception())
        elif (error := reader.exception()) is not None:
            await _end(worker)
            await _finish(call, out, reader, error)
    finally:
        await _end(reader, worker)


async def _end(*tasks: asyncio.Future[None]) -> None:
    """Cancel and wait to the end: what runs for the caller is ended by its own task, and that takes a moment."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _finish(call: Any, out: Outgoing, reader: asyncio.Future[None], error: BaseException | None) -> None:
    if isinstance(error, Refused):
        await out.send(AgentStreamFrame(failed=StreamRefused(code=error.code, reason=error.reason)))
    elif error is not None:
        raise error
    await call.done_writing()
    await asyncio.wait({reader}, timeout=_LAST_WORDS)


async def _read(call: Any, work: Work) -> None:
    """Until the caller goes away."""
    while (frame := await call.read()) is not grpc.aio.EOF:
        if frame.cancel:
            return
        work.received(frame)
