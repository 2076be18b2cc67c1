"""One connection to a port of a pod, made inside the pod's network namespace: what listens on localhost is reached.

Owns one socket. Each direction ends by itself, as TCP has it; the stream ends with both. The socket is made in a
thread that enters the pinned namespace and ends: a socket stays in the namespace that it was made in.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

from nodeagent import syscalls
from nodeagent.sandbox.failure import SandboxFailure
from nodeagent.sandbox.threads import in_fresh_thread
from nodeagent.streaming.call import Outgoing, Refused
from nodeagent.streaming.pumps import Incoming, Source, write_all
from podplane.v1.requests_pb2 import PortForwardResponse
from podplane.v1.session_pb2 import AgentStreamFrame, ControlStreamFrame

CONNECT_SECONDS = 10.0
_LOCALHOST = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


class PortForward:
    """The work of one stream. `net`: the pod's pinned network namespace; None: the node's own."""

    def __init__(self, net: Path | None, port: int, pod: str) -> None:
        self._net, self._port, self._pod = net, port, pod
        self._data = Incoming()

    def received(self, frame: ControlStreamFrame) -> None:
        kind = frame.portForward.WhichOneof("frame")
        if kind == "data":
            self._data.put(frame.portForward.data)
        elif kind == "closeWrite":
            self._data.close()

    async def run(self, out: Outgoing) -> None:
        title = f"error forwarding port {self._port} to pod {self._pod}"
        try:
            connection = await self._connect()
        except (OSError, SandboxFailure) as error:
            raise Refused("UNAVAILABLE", f"{title}: {error}") from error
        both = [asyncio.ensure_future(work) for work in (self._up(connection, out), self._down(connection, out))]
        try:
            await asyncio.gather(*both)
        except OSError as error:
            raise Refused("UNAVAILABLE", f"{title}: {error}") from error
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            connection.close()

    async def _up(self, connection: socket.socket, out: Outgoing) -> None:
        async def write(data: bytes) -> None:
            await write_all(connection.fileno(), data)

        await self._data.pour(write, out.taken)
        with contextlib.suppress(OSError):  # the pod has closed the connection already
            connection.shutdown(socket.SHUT_WR)

    async def _down(self, connection: socket.socket, out: Outgoing) -> None:
        async for data in Source(connection.fileno()).chunks():
            await out.send(AgentStreamFrame(portForward=PortForwardResponse(data=data)))
        await out.send(AgentStreamFrame(portForward=PortForwardResponse(closeWrite=True)))

    async def _connect(self) -> socket.socket:
        """Connected to localhost, by IPv4 or else by IPv6. Raises OSError of the first."""
        failure: OSError | None = None
        for family, address in _LOCALHOST:
            try:
                return await self._connect_to(family, address)
            except OSError as error:
                failure = failure or OSError(error.errno, f"connect to {address}:{self._port}: {_words(error)}")
        assert failure is not None
        raise failure

    async def _connect_to(self, family: socket.AddressFamily, address: str) -> socket.socket:
        made = await in_fresh_thread(lambda: _socket(self._net, family), "port forward")
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(made, (address, self._port))
        except BaseException:
            made.close()
            raise
        return made


def _words(error: OSError) -> str:
    # Python's own TimeoutError says nothing.
    return (error.strerror or f"no answer within {CONNECT_SECONDS:g} s").lower()


def _socket(net: Path | None, family: socket.AddressFamily) -> socket.socket:
    if net is not None:
        fd = os.open(net, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(fd, syscalls.CLONE_NEWNET)
        finally:
            os.close(fd)
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setblocking(False)
    return made
