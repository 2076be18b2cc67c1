"""healthCheckNodePort: tells load balancers whether this node has endpoints of a service, as kube-proxy does.

200 where the node has ready endpoints and the proxy works, 503 otherwise; the body says which. Owns one listening
socket a service with externalTrafficPolicy Local, on the event loop. Never tells more than that. A port that cannot be
had is named by set(); it is tried again whenever set() is called. Source: kube-proxy's healthcheck/service_health.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nodeagent.proxy.services import HealthCheck

_DEADLINE = 5.0
_LONGEST = 8192
_MOST = 64
"""Connections of one port at a time; further ones are closed at once."""
_STATUS = {200: "OK", 503: "Service Unavailable"}


@dataclass(slots=True)
class _Listener:
    check: HealthCheck
    server: asyncio.Server
    open: int = 0


class HealthChecks:
    """One for the node. is_healthy: whether the proxy keeps its rules up to date."""

    def __init__(self, is_healthy: Callable[[], bool]) -> None:
        self._is_healthy = is_healthy
        self._listeners: dict[int, _Listener] = {}

    async def set(self, checks: Iterable[HealthCheck]) -> dict[str, str]:
        """Answer for these services and no others; returns which ports cannot be had, by service."""
        wanted = {check.port: check for check in checks}
        for port in self._listeners.keys() - wanted.keys():
            await _close(self._listeners.pop(port))
        failed = {}
        for port, check in wanted.items():
            if known := self._listeners.get(port):
                known.check = check
                continue
            try:
                self._listeners[port] = await self._listen(check)
            except OSError as error:
                words = os.strerror(error.errno) if error.errno else str(error)
                failed[check.service] = f"cannot answer health checks on port {port}: {words}"
        return failed

    async def close(self) -> None:
        await self.set(())

    async def _listen(self, check: HealthCheck) -> _Listener:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(check.port, reader, writer)

        server = await asyncio.start_server(serve, "0.0.0.0", check.port, limit=_LONGEST)
        return _Listener(check, server)

    async def _serve(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        listener = self._listeners.get(port)
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            try:
                if listener is not None and listener.open < _MOST:
                    listener.open += 1
                    try:
                        async with asyncio.timeout(_DEADLINE):
                            await reader.readuntil(b"\r\n\r\n")
                            writer.write(response(listener.check, self._is_healthy()))
                            await writer.drain()
                    finally:
                        listener.open -= 1
            finally:
                writer.close()
                await writer.wait_closed()


def response(check: HealthCheck, is_healthy: bool) -> bytes:
    """The whole HTTP response."""
    status = 200 if check.endpoints and is_healthy else 503
    namespace, _, name = check.service.partition("/")
    # Line by line as kube-proxy writes it: people have scripts that look for these.
    body = (
        "{\n"
        f'\t"service": {{\n\t\t"namespace": "{namespace}",\n\t\t"name": "{name}"\n\t}},\n'
        f'\t"localEndpoints": {check.endpoints},\n'
        f'\t"serviceProxyHealthy": {"true" if is_healthy else "false"}\n'
        "}\n"
    )
    head = (
        f"HTTP/1.1 {status} {_STATUS[status]}\r\n"
        "Content-Type: application/json\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        f"X-Load-Balancing-Endpoint-Weight: {check.endpoints}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return (head + body).encode()


async def _close(listener: _Listener) -> None:
    listener.server.close()
    await listener.server.wait_closed()
