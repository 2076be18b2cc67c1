"""The netlink transport: send messages, match the answers. For rtnetlink and nfnetlink alike.

Owns one blocking socket (microseconds per request), headers, sequence numbers and acknowledgements; never interprets
what it carries. rtnetlink's messages are pyroute2's (sandbox/rtnl.py). The few attributes of nfnetlink that the proxy
reads are taken apart here: pyroute2 takes 0.1 ms for a tracked connection and this 7 µs, and there may be 100,000.
Every wait has a deadline. A refusal is a NetlinkError (an OSError) with the kernel's errno and, where it gives them,
its own words. Sources: netlink(7), linux/netlink.h; extended acknowledgements: Documentation/userspace-api/netlink.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400

_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200
_NLM_F_DUMP_INTR = 0x10
_NLMSGERR_ATTR_MSG = 1
_NLA_TYPE_MASK = 0x3FFF
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVE = 1 << 18
_SO_SNDBUFFORCE = 32
_DEADLINE = 5.0
_DUMP_TRIES = 5


class NetlinkError(OSError):
    """The kernel refused a request, or did not answer in time."""


@dataclass(frozen=True, slots=True)
class Request:
    """One message: its type, its flags beside REQUEST and ACK, its body, and what it asks for in words."""

    kind: int
    flags: int
    body: bytes
    asked: str


def attribute(kind: int, payload: bytes) -> bytes:
    """Encode one attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(len(payload) + 4, kind) + payload + bytes(-len(payload) % 4)


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Decode the attributes from offset on: kind → payload. A kind given twice keeps the last."""
    found = {}
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        found[kind & _NLA_TYPE_MASK] = data[offset + 4 : offset + length]
        offset += length + (-length % 4)
    return found


def as_text(payload: bytes) -> str:
    return payload.rstrip(b"\0").decode(errors="replace")


class Socket:
    """One netlink socket of the namespace that the calling thread is in; safe to share between threads."""

    def __init__(self, family: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        try:
            self._socket.bind((0, 0))
            self._socket.settimeout(_DEADLINE)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        except BaseException:
            self._socket.close()
            raise
        self._lock = threading.Lock()
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def attempt(self, *requests: Request) -> list[NetlinkError | None]:
        """Send all requests in one datagram; the kernel does each, whatever came of those before it."""
        with self._lock:
            first = self._send(requests, NLM_F_REQUEST | NLM_F_ACK)
            results: dict[int, NetlinkError | None] = {}
            while len(results) < len(requests):
                for sequence, kind, flags, body in self._receive():
                    if kind == _NLMSG_ERROR and first <= sequence < first + len(requests):
                        results[sequence] = _error(body, flags, requests[sequence - first].asked)
        return [results[first + index] for index in range(len(requests))]

    def do(self, *requests: Request) -> None:
        """Send all requests in one datagram. Raises the first refusal; the others were tried all the same."""
        for error in self.attempt(*requests):
            if error is not None:
                raise error

    def transact(self, subsystem: int, requests: Sequence[Request]) -> None:
        """Do all requests or none, as one transaction of an nfnetlink subsystem. Raises the first refusal.

        For a socket of its own: what is said after a refusal is left unread.
        """
        header = struct.pack("!BBH", 0, 0, subsystem)
        begin, end = (Request(kind, 0, header, "") for kind in (_BATCH_BEGIN, _BATCH_END))
        # A refusal is told in any case; that there was none, by the last one's acknowledgement.
        *others, last = requests
        last = replace(last, flags=last.flags | NLM_F_ACK)
        with self._lock:
            # However much it is, it is one datagram.
            size = sum(len(item.body) + 20 for item in requests)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 2 * size + _RECEIVE)
            first = self._send([begin, *others, last, end], NLM_F_REQUEST) + 1
            while True:
                for sequence, kind, flags, body in self._receive():
                    if kind == _NLMSG_ERROR and first - 1 <= sequence <= first + len(requests):
                        asked = requests[min(max(0, sequence - first), len(requests) - 1)].asked
                        if (error := _error(body, flags, asked)) is not None:
                            raise error
                        return

    def ask(self, request: Request) -> bytes:
        """Send a request that is answered by one message and return that message's body."""
        with self._lock:
            first = self._send([request], NLM_F_REQUEST | NLM_F_ACK)
            answer: bytes | None = None
            while True:
                for sequence, kind, flags, body in self._receive():
                    if sequence != first:
                        continue
                    if kind != _NLMSG_ERROR:
                        answer = body
                    elif (error := _error(body, flags, request.asked)) is not None:
                        raise error
                    elif answer is None:
                        raise NetlinkError(0, f"{request.asked}: no answer in the acknowledgement")
                    else:
                        return answer

    def dump(self, request: Request) -> list[bytes]:
        """Return the bodies of all messages that answer a dump; one that a change cut through is taken again."""
        for _ in range(_DUMP_TRIES):
            with self._lock:
                bodies, whole = self._dump_once(request)
            if whole:
                return bodies
        raise NetlinkError(0, f"{request.asked}: changed under each of {_DUMP_TRIES} readings")

    def _dump_once(self, request: Request) -> tuple[list[bytes], bool]:
        first = self._send([request], NLM_F_REQUEST | NLM_F_DUMP)
        bodies: list[bytes] = []
        whole = True
        while True:
            for sequence, kind, flags, body in self._receive():
                if sequence != first:
                    continue
                whole = whole and not flags & _NLM_F_DUMP_INTR
                if kind == _NLMSG_DONE:
                    return bodies, whole
                if kind == _NLMSG_ERROR:
                    if (error := _error(body, flags, request.asked)) is not None:
                        raise error
                else:
                    bodies.append(body)

    def _send(self, requests: Sequence[Request], flags: int) -> int:
        first = self._sequence + 1
        self._sequence += len(requests)
        self._socket.send(
            b"".join(
                _HEADER.pack(len(item.body) + 16, item.kind, item.flags | flags, first + index, 0)
                + item.body
                + bytes(-len(item.body) % 4)
                for index, item in enumerate(requests)
            )
        )
        return first

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield (sequence, kind, flags, body). What an earlier, timed out request left over is for callers to skip."""
        try:
            data = self._socket.recv(_RECEIVE)
        except TimeoutError:
            raise NetlinkError(110, f"netlink did not answer within {_DEADLINE:g} s") from None
        offset = 0
        while offset + 16 <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            yield sequence, kind, flags, data[offset + 16 : offset + length]
            offset += length + (-length % 4)


def _error(body: bytes, flags: int, asked: str) -> NetlinkError | None:
    number = -int(struct.unpack_from("=i", body)[0])
    if number == 0:
        return None
    words = os.strerror(number)
    if flags & _NLM_F_ACK_TLVS:
        start = 20 if flags & _NLM_F_CAPPED else 4 + struct.unpack_from("=I", body, 4)[0]
        if said := attributes(body, start).get(_NLMSGERR_ATTR_MSG):
            words += f" ({as_text(said)})"
    return NetlinkError(number, f"{asked}: {words}")
