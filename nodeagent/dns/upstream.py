"""Questions about the rest of the world: asked of the node's own servers, the answers kept for as long as they allow.

    resolv.conf ─► servers, the ones that answered last first, never ourselves
    question ─► cache ─► the same question in flight? its answer ─► UDP, each server in turn ─► TCP where it was cut

Two equal questions are one: where a server of the node asks us back, its question waits for itself until the deadline
and nothing grows. Each question to a server has a port and an id of its own. Fails with NoAnswer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from nodeagent.dns.cache import LONGEST, LONGEST_NEGATIVE, Cache
from nodeagent.dns.wire import PAYLOAD, Found
from nodeagent.pods.resolvconf import parse

log = logging.getLogger(__name__)

PORT = 53
PATIENCE = 1.5
"""Seconds that a server has for one try."""
LARGEST = 65535
DEADLINE = 4.5
"""Seconds for a question altogether: resolvers of C libraries wait 5."""
MOST = 256
"""Questions in flight."""
_AVOID = 15.0
"""Seconds that a server that did not answer comes last."""
_ROUNDS = 2
_FILE = 3
"""Servers of a resolv.conf that count, as in C libraries."""

Key = tuple[dns.name.Name, str, bool, bool]
"""name in lower case, type, whether signatures are asked for, whether without validation."""
Server = tuple[str, int]


class NoAnswer(Exception):
    """No server answered, or there is none. refused: there is none to ask."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class Servers:
    """The servers that a resolv.conf names, read again when it changes; `own` are ourselves and left out."""

    def __init__(self, path: Path, own: Callable[[], Collection[str]]) -> None:
        self._path = path
        self._own = own
        self._seen: tuple[int, int] | None = None
        self._named: list[str] = []

    def list(self) -> Sequence[Server]:
        """Address and port, in the file's order."""
        try:
            found = self._path.stat()
            if (found.st_mtime_ns, found.st_ino) != self._seen:
                self._named = parse(self._path.read_text()).servers[:_FILE]
                self._seen = (found.st_mtime_ns, found.st_ino)
        except FileNotFoundError:
            self._named, self._seen = [], None
        except OSError as error:
            log.warning("cannot read %s: %s: the servers that it named before are asked", self._path, error)
        own = self._own()
        return [(server, PORT) for server in self._named if server not in own]


class Upstream:
    """One for the server. observe: called with the seconds of each question to the servers."""

    def __init__(self, servers: Callable[[], Sequence[Server]], observe: Callable[[float], None]) -> None:
        self._servers = servers
        self._observe = observe
        self._cache: Cache[Key] = Cache()
        self._asking: dict[Key, asyncio.Task[dns.message.Message]] = {}
        self._avoided: dict[Server, float] = {}

    def cached(self, key: Key) -> Found | None:
        """What is kept and still holds."""
        now = time.monotonic()
        kept = self._cache.get(key, now)
        return Found(dns.message.from_wire(kept.wire), int(now - kept.since)) if kept else None

    async def ask(self, key: Key) -> Found:
        """Ask the servers. Raises NoAnswer."""
        task = self._asking.get(key)
        if task is None:
            if len(self._asking) >= MOST:
                raise NoAnswer(f"{MOST} questions wait for an answer")
            task = asyncio.create_task(self._ask(key), name="dns question")
            self._asking[key] = task
            task.add_done_callback(lambda done: self._asked(key, done))
        # Who asked first may go away: the others still wait.
        return Found(await asyncio.shield(task))

    def _asked(self, key: Key, task: asyncio.Task[dns.message.Message]) -> None:
        del self._asking[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("no answer for %s %s: %s", key[0], key[1], error)

    async def close(self) -> None:
        """End the questions in flight."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, key: Key) -> dns.message.Message:
        began = time.monotonic()
        try:
            async with asyncio.timeout(DEADLINE):
                answer = await self._each(key)
        except TimeoutError:
            raise NoAnswer(f"no server answered within {DEADLINE:g} s") from None
        finally:
            self._observe(time.monotonic() - began)
        self._cache.put(key, answer.to_wire(max_size=LARGEST), time.monotonic(), lifetime(answer))
        return answer

    async def _each(self, key: Key) -> dns.message.Message:
        last: dns.message.Message | None = None
        servers = self._servers()
        if not servers:
            raise NoAnswer("the node has no DNS server", refused=True)
        for _ in range(_ROUNDS):
            for server in sorted(servers, key=self._is_avoided):
                try:
                    async with asyncio.timeout(PATIENCE):
                        answer = await _exchange(server, key)
                except (TimeoutError, OSError, dns.exception.DNSException, asyncio.IncompleteReadError) as error:
                    log.debug("no answer of %s: %r", server[0], error)
                    self._avoided[server] = time.monotonic() + _AVOID
                    continue
                self._avoided.pop(server, None)
                if answer.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                    return answer
                last = answer  # it cannot; another one may
            if last is not None:
                return last
        raise NoAnswer("no server answered")

    def _is_avoided(self, server: Server) -> bool:
        return self._avoided.get(server, 0.0) > time.monotonic()


def lifetime(answer: dns.message.Message) -> int:
    """Seconds that an answer may be kept: RFC 2308 for one that there is nothing. Pure."""
    if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return 0
    if answer.answer and answer.rcode() == dns.rcode.NOERROR:
        return min([LONGEST, *(each.ttl for part in (answer.answer, answer.authority) for each in part)])
    soa = [each for each in answer.authority if each.rdtype == dns.rdatatype.SOA]
    return min([LONGEST_NEGATIVE, soa[0].ttl, soa[0][0].minimum]) if soa else 0


async def _exchange(server: Server, key: Key) -> dns.message.Message:
    """Ask one server, by TCP where a datagram was not enough, without EDNS where it does not know that."""
    answer = await _datagram(server, _query(key, edns=True))
    if answer.rcode() == dns.rcode.FORMERR:
        answer = await _datagram(server, _query(key, edns=False))
    if answer.flags & dns.flags.TC:
        answer = await _stream(server, _query(key, edns=True))
    return answer


def _query(key: Key, *, edns: bool) -> dns.message.Message:
    name, kind, dnssec, unchecked = key
    flags = dns.flags.RD | (dns.flags.CD if unchecked else 0)
    if not edns:
        return dns.message.make_query(name, kind, flags=flags)
    return dns.message.make_query(name, kind, flags=flags, use_edns=0, payload=PAYLOAD, want_dnssec=dnssec)


class _Datagram(asyncio.DatagramProtocol):
    """Waits for the one datagram that answers a query; the socket is connected: only its server is heard."""

    def __init__(self, query: dns.message.Message) -> None:
        self.answer: asyncio.Future[dns.message.Message] = asyncio.get_running_loop().create_future()
        self._query = query

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.DatagramTransport, transport).sendto(self._query.to_wire())

    def datagram_received(self, data: bytes, _addr: object) -> None:
        try:
            answer = dns.message.from_wire(data, ignore_trailing=True)
            if self._query.is_response(answer) and not self.answer.done():
                self.answer.set_result(answer)
        except (dns.exception.DNSException, ValueError, IndexError) as error:
            log.debug("a DNS server sent what is no answer: %s", error)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _datagram(server: Server, query: dns.message.Message) -> dns.message.Message:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(lambda: _Datagram(query), remote_addr=server)
    try:
        return await protocol.answer
    finally:
        transport.close()


async def _stream(server: Server, query: dns.message.Message) -> dns.message.Message:
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(query.to_wire(prepend_length=True))
        await writer.drain()
        length = int.from_bytes(await reader.readexactly(2), "big")
        answer = dns.message.from_wire(await reader.readexactly(length), ignore_trailing=True)
    finally:
        writer.close()
    if not query.is_response(answer):
        raise ConnectionError("the answer is to another question")
    return answer
