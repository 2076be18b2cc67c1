"""One probe made once: a command, an HTTP GET, a connection or a gRPC health check, within its timeout.

Dials the pod's address from the node, as the kubelet. Never decides what a failure means. A probe that fails says why;
only a bug raises.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import grpc.aio
from google.protobuf.struct_pb2 import Value
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from nodeagent.pods import probes
from nodeagent.runtime.inotify import Inotify
from nodeagent.streaming.child import Child, NotStarted, Wish
from nodeagent.streaming.pumps import Source
from podplane import intstr
from podplane.v1.container_pb2 import Container, HTTPGetAction, Probe

USER_AGENT = "kube-probe/podplane"
OUTPUT = 10 << 10
"""Bytes of a command's output that are kept, as the kubelet."""
_HEAD = 64 << 10
_REDIRECTS = 10
_NO_HEALTH = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"


class Failed(Exception):
    """The probe has failed, and why."""


class Probing:
    """Makes probes in one container. `command(pid_file, argv)` is the runtime's command line."""

    def __init__(
        self,
        address: str,
        container: Container,
        marks: Path,
        events: Inotify,
        command: Callable[[Path, Sequence[str]], Sequence[str]],
        agent: str = USER_AGENT,
    ) -> None:
        self._address, self._agent = address, agent
        self._container = container
        self._marks, self._events, self._command = marks, events, command

    async def probe(self, probe: Probe) -> None:
        """Return where it passed. Raises Failed."""
        seconds = probes.timeout(probe)
        try:
            async with asyncio.timeout(seconds):
                await self._act(probe)
        except TimeoutError:
            raise Failed(_late(probe, seconds)) from None
        except ValueError as error:  # a host or a redirect that is no address
            raise Failed(str(error)) from error

    async def _act(self, probe: Probe) -> None:
        if probe.HasField("exec"):
            code, said = await self.command(probe.exec.command)
            if code:
                raise Failed(said or f"exit status {code}")
        elif probe.HasField("httpGet"):
            status = await self.get(probe.httpGet)
            if not 200 <= status < 400:
                raise Failed(f"HTTP probe failed with statuscode: {status}")
        elif probe.HasField("tcpSocket"):
            host = probe.tcpSocket.host or self._address
            writer = (await _dial(host, self._port(probe.tcpSocket.port)))[1]
            writer.close()
        else:
            await _grpc(f"{self._address}:{probe.grpc.port}", probe.grpc.service, self._agent)

    def _port(self, reference: Value) -> int:
        port = intstr.resolve_port(reference, [self._container])
        if port is None:
            raise Failed(f"couldn't find port: {reference.string_value}")
        return port

    async def command(self, argv: Sequence[str]) -> tuple[int, str]:
        """Run a command to its end; its exit code and what it said. Raises Failed where it does not run."""
        wish = Wish(stdin=False, tty=False)
        child = Child(self._marks, self._events, wish, lambda pid_file: self._command(pid_file, argv))
        try:
            await child.start()
            said = bytearray()
            sources = [Source(fd) for fd in (child.stdout, child.stderr)]
            readers = [asyncio.ensure_future(_keep(source, said)) for source in sources]
            try:
                code = await child.ended()
                for source in sources:
                    source.finish()
                await asyncio.gather(*readers)
            finally:
                for reader in readers:
                    reader.cancel()
                await asyncio.gather(*readers, return_exceptions=True)
        except NotStarted as failure:
            raise Failed(str(failure)) from None
        except OSError as error:
            raise Failed(f"cannot run the command: {error}") from error
        finally:
            await child.close()
        return code, said.decode(errors="replace")

    async def get(self, get: HTTPGetAction) -> int:
        """The status of one GET, over the redirects within its host. Raises Failed, ValueError."""
        scheme, host = (get.scheme or "HTTP").lower(), get.host or self._address
        url = f"{scheme}://{host}:{self._port(get.port)}/{get.path.removeprefix('/')}"
        for _ in range(_REDIRECTS):
            status, location = await _get(url, get, self._agent)
            target = urljoin(url, location)
            redirected = 300 <= status < 400 and bool(location)
            if not redirected or urlsplit(target).hostname != urlsplit(url).hostname:
                return status  # a redirect to elsewhere is not followed, and has passed
            url = target
        raise Failed(f'Get "{url}": stopped after {_REDIRECTS} redirects')


def _late(probe: Probe, seconds: float) -> str:
    if probe.HasField("exec"):
        return f'command timed out: "{" ".join(probe.exec.command)}" timed out after {seconds:g}s'
    if probe.HasField("grpc"):
        return f"timeout: health rpc did not complete within {seconds:g}s: context deadline exceeded"
    return f"context deadline exceeded: no answer within {seconds:g}s"


async def _keep(source: Source, said: bytearray) -> None:
    async for data in source.chunks():
        said += data[: OUTPUT - len(said)]


async def _dial(
    host: str, port: int, context: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await asyncio.open_connection(host, port, ssl=context, limit=_HEAD)
    except OSError as error:
        # asyncio's own words hide the kernel's.
        words = f"connect: {os.strerror(error.errno or 0).lower()}" if _of_kernel(error) else str(error)
        raise Failed(f"dial tcp {host}:{port}: {words}") from error


def _of_kernel(error: OSError) -> bool:
    return error.errno is not None and not isinstance(error, ssl.SSLError | socket.gaierror)


async def _get(url: str, get: HTTPGetAction, agent: str) -> tuple[int, str]:
    """Status code and Location of one GET; certificates are not verified, as the kubelet."""
    parts = urlsplit(url)
    context = _tls() if parts.scheme == "https" else None
    port = parts.port or (443 if context else 80)
    reader, writer = await _dial(parts.hostname or "", port, context)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        writer.write(request(target or "/", parts.netloc, get, agent))
        head = await reader.readuntil(b"\r\n\r\n")
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise Failed(f'Get "{url}": {error}') from error
    finally:
        writer.transport.abort()  # what else it may have to say is not waited for
    return parse(head, url)


@functools.cache
def _tls() -> ssl.SSLContext:
    """Verifies nothing. One for all: the default one reads every authority of the node, which takes 86 ms."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def request(target: str, authority: str, get: HTTPGetAction, agent: str = USER_AGENT) -> bytes:
    """The bytes of a GET. A header of the probe's takes the place of the usual one; an empty one leaves it out."""
    headers = {"host": ("Host", authority), "user-agent": ("User-Agent", agent),
               "accept": ("Accept", "*/*"), "connection": ("Connection", "close")}  # fmt: skip
    given = {header.name.lower() for header in get.httpHeaders}
    lines = [f"{name}: {value}" for key, (name, value) in headers.items() if key not in given]
    lines += [f"{_clean(h.name)}: {_clean(h.value)}" for h in get.httpHeaders if h.value]
    return "\r\n".join([f"GET {_clean(target).replace(' ', '%20')} HTTP/1.1", *lines, "", ""]).encode()


def _clean(text: str) -> str:
    return text.replace("\r", "").replace("\n", "")


def parse(head: bytes, url: str) -> tuple[int, str]:
    """(status code, Location or nothing). Raises Failed."""
    first, *rest = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdecimal():
        raise Failed(f'Get "{url}": malformed HTTP response "{first[:80]}"')
    for line in rest:
        name, _, value = line.partition(":")
        if name.strip().lower() == "location":
            return int(words[1]), value.strip()
    return int(words[1]), ""


async def _grpc(target: str, service: str, agent: str) -> None:
    # No proxy of the agent's: it is for images. No connection of another probe's, whose back-off is its own.
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1), ("grpc.primary_user_agent", agent)]
    async with grpc.aio.insecure_channel(target, options) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        try:
            answer = await check(health_pb2.HealthCheckRequest(service=service))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise Failed(_NO_HEALTH) from error
            raise Failed(f"error: health rpc probe failed: {error.details() or error.code()}") from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        raise Failed(f'service unhealthy (responded with "{name}")')
