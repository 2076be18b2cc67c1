"""Attach: a running container's own stdin, stdout and stderr, through the socket that its conmon listens on.

Owns one connection. conmon sends packets that begin with a byte for the stream, and takes packets of stdin; it waits
for whoever is attached, and the container then waits for conmon. So a caller that takes nothing for STALLED seconds
is let go of: the container is worth more. The end of the connection is the end of the container.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

from nodeagent.streaming.call import Outgoing, Refused
from nodeagent.streaming.exec import exited
from nodeagent.streaming.pumps import Incoming, readable, write_all
from podplane.v1.requests_pb2 import ExecRequest, ExecResponse
from podplane.v1.session_pb2 import AgentStreamFrame, ControlStreamFrame

STALLED = 10.0
_PACKET = 8 << 10
"""What conmon takes of stdin at once; it cuts a larger packet off."""
_LARGEST = 64 << 10
_STREAMS = {2: "stdout", 3: "stderr"}


class Attach:
    """The work of one stream.

    `connect()` connects and raises Refused; `resize(width, height)` gives the container's terminal its size; `end()`
    waits for the exit code, None where nobody can know it; `let_go(connection)` takes the connection over in the end.
    """

    def __init__(
        self,
        start: ExecRequest.Start,
        connect: Callable[[], socket.socket],
        resize: Callable[[int, int], None],
        end: Callable[[], Awaitable[int | None]],
        let_go: Callable[[socket.socket], None],
    ) -> None:
        self._start, self._connect = start, connect
        self._resize, self._end, self._let_go = resize, end, let_go
        self._stdin = Incoming()

    def received(self, frame: ControlStreamFrame) -> None:
        kind = frame.exec.WhichOneof("frame")
        if kind == "stdin":
            self._stdin.put(frame.exec.stdin)
        elif kind == "resize":
            self._resize(frame.exec.resize.width, frame.exec.resize.height)
        elif kind == "closeStdin":
            self._stdin.close()

    async def run(self, out: Outgoing) -> None:
        connection = self._connect()
        feeder = asyncio.ensure_future(self._feed(connection, out))
        try:
            await self._pass_on(connection, out)
        except OSError as error:
            raise Refused("UNAVAILABLE", f"the container's output cannot be read: {error}") from error
        finally:
            feeder.cancel()
            await asyncio.gather(feeder, return_exceptions=True)
            self._let_go(connection)
        code = await self._end()
        if code is None:
            raise Refused("UNAVAILABLE", "the container's end was not seen: its exit code is not known")
        await out.send(AgentStreamFrame(exec=ExecResponse(exit=exited(code))))

    async def _pass_on(self, connection: socket.socket, out: Outgoing) -> None:
        while packet := await _packet(connection):
            name = _STREAMS.get(packet[0])
            if name is None or not self._wanted(name):
                continue
            try:
                async with asyncio.timeout(STALLED):
                    await out.send(AgentStreamFrame(exec=ExecResponse(**{name: packet[1:]})))  # type: ignore[arg-type]
            except TimeoutError:
                words = f"let go of: nothing was taken for {STALLED:g} s, and the container must not wait longer"
                raise Refused("RESOURCE_EXHAUSTED", words) from None

    def _wanted(self, name: str) -> bool:
        return not self._start.HasField(name) or bool(getattr(self._start, name))  # type: ignore[arg-type]

    async def _feed(self, connection: socket.socket, out: Outgoing) -> None:
        async def write(data: bytes) -> None:
            if self._start.stdin:
                for at in range(0, len(data), _PACKET):
                    await write_all(connection.fileno(), data[at : at + _PACKET])

        await self._stdin.pour(write, out.taken)
        if self._start.stdin:
            with contextlib.suppress(OSError):  # the container has ended
                connection.shutdown(socket.SHUT_WR)


async def _packet(connection: socket.socket) -> bytes:
    while True:
        try:
            return connection.recv(_LARGEST)
        except BlockingIOError:
            await readable(connection.fileno())
        except ConnectionResetError:  # conmon has closed while some stdin was unread
            return b""
