"""The node's DNS server: UDP and TCP on the bridge's address, for pods and for the node itself.

    datagram or TCP frame ─► wire.read ─► zone: the cluster's names, at once
                                       ─► upstream: everything else, and where a CNAME of ours leads

Owns the two sockets and the zone, which follows the node's objects from the first question on; while the control plane
is away it goes on with what it knows. Answers pods of the cluster and the node, nobody else: it is no open resolver.
`problem` says why it cannot listen; it tries again until it can. What one client sends harms no other: questions in
flight, connections and the time of each are bounded.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, cast

from nodeagent.dns.zone import Ranges, Zone
from nodeagent.garbage import uncollected
from nodeagent.metrics import Metrics
from nodeagent.pods.objects import Objects

if TYPE_CHECKING:
    from nodeagent.dns.responder import Responder
    from nodeagent.dns.upstream import Upstream
    from nodeagent.dns.wire import Question

log = logging.getLogger(__name__)

PORT = 53
RETRY = 2.0
CONNECTIONS = 128
IDLE = 10.0
"""Seconds that a TCP client may be silent."""
_MOST = 512
"""Questions that wait for other servers."""
_IP_FREEBIND = 15


class DnsServer:
    """One for the node. `configure` says where; `run` until cancelled."""

    def __init__(self, objects: Objects, metrics: Metrics, domain: str, resolv_conf: Path) -> None:
        self.problem: str | None = None
        self.listening = False
        self._objects = objects
        self._domain = domain
        self._ranges: Ranges | None = None
        self._address = ""
        self._pods = IPv4Network("0.0.0.0/32")
        self._metrics = metrics
        self._resolv_conf = resolv_conf
        self._upstream: Upstream | None = None
        self._woken = asyncio.Event()
        self._waiting: set[asyncio.Task[None]] = set()
        self._clients: set[asyncio.Task[None]] = set()
        objects.listen(self._changed)

    @functools.cached_property
    def zone(self) -> Zone:
        """What the node knows, from the first question on: an agent that starts has rules to put right first."""
        made = Zone(self._domain, self._address, self._ranges)
        with uncollected():
            for service in self._objects.services.values():
                made.put_service(service)
            for item in self._objects.endpoint_slices.values():
                made.put_slice(item)
        return made

    def configure(self, address: str, cluster_cidr: str, service_cidr: str) -> None:
        """Say where to listen, whom to answer, and whose reverse names are the cluster's own."""
        pods = IPv4Network(cluster_cidr)
        self._ranges = Ranges(pods, IPv4Network(service_cidr) if service_cidr else None)
        if "zone" in vars(self):
            self.zone.ranges, self.zone.server = self._ranges, address
        self._pods = pods
        if address != self._address:
            self._address = address
            self._woken.set()

    def _changed(self, kind: str, key: tuple[str, str]) -> None:
        if "zone" not in vars(self):
            return
        if kind == "service":
            service = self._objects.services.get(key)
            if service is None:
                self.zone.remove_service(key)
            else:
                self.zone.put_service(service)
        elif kind == "endpointSlice":
            item = self._objects.endpoint_slices.get(key)
            if item is None:
                self.zone.remove_slice(key)
            else:
                self.zone.put_slice(item)

    @functools.cached_property
    def _responder(self) -> Responder:
        """Made for the first question: dnspython takes 30 ms of a start, and 0.9 MB."""
        from nodeagent.dns.responder import Responder
        from nodeagent.dns.upstream import Servers, Upstream

        servers = Servers(self._resolv_conf, lambda: {self._address})
        self._upstream = Upstream(servers.list, self._metrics.dns_upstream.observe)
        return Responder(self.zone, self._upstream, self._metrics.dns_queries.add)

    # ── the sockets ──────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Serve where configure() says, until cancelled."""
        try:
            while True:
                self._woken.clear()
                if self._address:
                    await self._serve(self._address)
                else:
                    await self._woken.wait()
        finally:
            for task in (*self._waiting, *self._clients):
                task.cancel()
            await asyncio.gather(*self._waiting, *self._clients, return_exceptions=True)
            if self._upstream is not None:
                await self._upstream.close()

    async def _serve(self, address: str) -> None:
        """Until the address is another one; come back where it cannot be had."""
        sockets: list[socket.socket] = []
        loop = asyncio.get_running_loop()
        try:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                sockets.append(_bound(kind, address))
            transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self._datagram), sock=sockets[0])
            server = await asyncio.start_server(self._connected, sock=sockets[1])
        except OSError as error:
            for each in sockets:
                each.close()
            await self._cannot(address, error)
            return
        log.info("DNS is served", extra={"address": address})
        self.problem, self.listening = None, True
        try:
            await self._woken.wait()
        finally:
            self.listening = False
            transport.close()
            server.close()

    async def _cannot(self, address: str, error: OSError) -> None:
        words = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            words += ": another DNS server of this machine listens on every address; bind it to its own ones"
        problem = f"the DNS server cannot listen on {address}:{PORT}: {words}"
        if problem != self.problem:
            log.error("%s", problem)
        self.problem = problem
        try:
            async with asyncio.timeout(RETRY):
                await self._woken.wait()
        except TimeoutError:
            return

    def _is_client(self, address: str) -> bool:
        return IPv4Address(address) in self._pods

    def _datagram(self, data: bytes, client: tuple[str, int], transport: asyncio.DatagramTransport) -> None:
        if not self._is_client(client[0]):
            return
        answer = self._responder.at_once(data, stream=False)
        if isinstance(answer, bytes):
            transport.sendto(answer, client)
        elif answer is not None and len(self._waiting) >= _MOST:
            transport.sendto(self._responder.failure(data), client)
        elif answer is not None:
            task = asyncio.create_task(self._later(answer, client, transport), name="dns answer")
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)

    async def _later(self, question: Question, client: tuple[str, int], transport: asyncio.DatagramTransport) -> None:
        answer = await self._responder.resolve(question, stream=False)
        if not transport.is_closing():
            transport.sendto(answer, client)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            if len(self._clients) <= CONNECTIONS and self._is_client(writer.get_extra_info("peername")[0]):
                await self._converse(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # it has gone, or says nothing: TimeoutError is an OSError
        finally:
            self._clients.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(IDLE):
                data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            answer = self._responder.at_once(data, stream=True)
            if answer is None:
                return
            if not isinstance(answer, bytes):
                answer = await self._responder.resolve(answer, stream=True)
            async with asyncio.timeout(IDLE):
                writer.write(len(answer).to_bytes(2, "big") + answer)
                await writer.drain()


class _Datagrams(asyncio.DatagramProtocol):
    """Hands each datagram on."""

    def __init__(self, take: Callable[[bytes, tuple[str, int], asyncio.DatagramTransport], None]) -> None:
        self._take = take
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._take(data, addr, self._transport)


def _bound(kind: socket.SocketKind, address: str) -> socket.socket:
    """A socket on the address, which need not be there yet: the bridge may come later, or go and come again."""
    made = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, PORT))
    except BaseException:
        made.close()
        raise
    return made
