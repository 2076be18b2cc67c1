"""The HTTP endpoint of --metrics-address: GET /metrics (Prometheus) and GET /healthz, and nothing else.

One request a connection, of bounded size and time, without TLS and credentials: it tells numbers and names of methods,
no objects. On loopback unless the address says otherwise. A client that misbehaves is cut off and harms nobody.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
from http import HTTPStatus

from podplane.metrics import CONTENT_TYPE, Registry

METRICS_HELP = (
    "where to serve /metrics and /healthz, in clear and to anyone who can connect; :PORT is loopback only; "
    "default: nowhere"
)

_LIMIT = 8192  # bytes of a request
_SECONDS = 5.0  # that a client has for all of it
_CONNECTIONS = 32


def metrics_address(text: str) -> tuple[str, int] | None:
    """Host (an IP address) and port of `HOST:PORT` or `:PORT`; None for an empty text."""
    if not text:
        return None
    host, colon, port = text.rpartition(":")
    try:
        if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError(port)
        return str(ipaddress.ip_address(host.strip("[]") or "127.0.0.1")), int(port)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be ADDRESS:PORT or :PORT, as in 127.0.0.1:9445") from None


class MetricsServer:
    """Open it with `open`; it serves until `close`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._server: asyncio.Server
        self._connections: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, registry: Registry, host: str, port: int) -> MetricsServer:
        """Listen; OSError that names the address where that fails. Port 0 takes a free one."""
        server = cls(registry)
        try:
            server._server = await asyncio.start_server(server._accept, host, port, limit=_LIMIT)
        except OSError as error:
            raise OSError(f"cannot serve metrics on {host}:{port}: {error.strerror or error}") from error
        return server

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening and cut off who is connected."""
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            # Time-outs, broken connections and requests that are too long: the client's business alone.
            with contextlib.suppress(TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                async with asyncio.timeout(_SECONDS):
                    await self._serve(reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) > _CONNECTIONS:
            status, body = HTTPStatus.SERVICE_UNAVAILABLE, "too many connections\n"
        else:
            head = await reader.readuntil(b"\r\n\r\n")
            status, body = self._answer(head.split(b"\r\n", 1)[0].decode("latin-1").split(" "))
        data = body.encode()
        writer.write(
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {CONTENT_TYPE}\r\n"
            f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode()
            + data
        )
        await writer.drain()

    def _answer(self, request: list[str]) -> tuple[HTTPStatus, str]:
        """Status and body for the words of a request line."""
        if len(request) != 3:
            return HTTPStatus.BAD_REQUEST, "bad request\n"
        method, path, _ = request
        if method != "GET":
            return HTTPStatus.METHOD_NOT_ALLOWED, "only GET\n"
        match path.partition("?")[0]:
            case "/metrics":
                return HTTPStatus.OK, self._registry.text()
            case "/healthz":
                return HTTPStatus.OK, "ok\n"
        return HTTPStatus.NOT_FOUND, "there are /metrics and /healthz\n"
