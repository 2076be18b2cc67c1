"""Hears that somebody changed the node's nftables rules, or its addresses: netlink's notifications, on the loop.

    first message, or more than the buffer holds (ENOBUFS) ──► heard(), then deaf, however much comes
    drain(), a look, resume() ──► hears again; what came after drain() is heard at once

Owns one socket of the namespace that it was opened in. Never says what has changed, and reads no message: rules'
generation tells whether anything did (backend.py). So a flood costs a wake-up for each resume() and no more. Opening
it fails with OSError. Sources: linux/netfilter/nfnetlink.h, linux/rtnetlink.h.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Callable, Iterator

RULES = (12, 7)
"""NETLINK_NETFILTER, NFNLGRP_NFTABLES."""
ADDRESSES = (socket.NETLINK_ROUTE, 5)
"""RTNLGRP_IPV4_IFADDR: a link that goes takes its addresses along, one message each."""
_SOL_NETLINK = 270
_REST, _LONGEST_REST = 0.25, 5.0
"""Seconds after a look, at least and at most, before others' changes are heard again."""
_SHARE = 10
"""Somebody who changes rules of his own all the time makes us read ours for one part of this of one core's time."""
_DATAGRAM = 1 << 16
_JOIN, _LEAVE = 1, 2  # NETLINK_ADD_MEMBERSHIP, NETLINK_DROP_MEMBERSHIP


class Group:
    """A socket of one of netlink's groups, of the namespace that it was opened in: in it from join() until leave()."""

    def __init__(self, group: tuple[int, int]) -> None:
        family, self._group = group
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, family)
        try:
            self._socket.bind((0, 0))
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def drain(self) -> None:
        """Throw away what has come so far."""
        while True:
            try:
                self._socket.recv(1)  # a datagram is gone however little of it is read
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    async def receive(self) -> bytes:
        """The next messages: one datagram. Raises OSError; ENOBUFS where some are lost."""
        return await asyncio.get_running_loop().sock_recv(self._socket, _DATAGRAM)

    def join(self) -> None:
        self._membership(_JOIN)

    def leave(self) -> None:
        self._membership(_LEAVE)

    def _membership(self, option: int) -> None:
        self._socket.setsockopt(_SOL_NETLINK, option, self._group)


class Changes(Group):
    """For use on one loop's thread. heard must not block. What is drained before a look, that look sees."""

    def __init__(self, heard: Callable[[], None], group: tuple[int, int] = RULES) -> None:
        super().__init__(group)
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        try:
            self.join()
            self._listen()
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._stop()
        super().close()

    def resume(self, rest: float) -> None:
        """Hear again after a rest of so many seconds; nothing to do where nothing was heard."""
        if self._timer is None and not self._listening:
            self._timer = self._loop.call_later(rest, self._listen)

    def _listen(self) -> None:
        self._timer = None
        self._listening = True
        self._loop.add_reader(self._socket, self._on_readable)

    def _stop(self) -> None:
        self._listening = False
        self._loop.remove_reader(self._socket)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_readable(self) -> None:
        self._stop()
        self._heard()


@contextlib.contextmanager
def deaf(changes: Changes | None) -> Iterator[None]:
    """For our own changes, which are no news. The kernel need not tell of each rule then: up to a tenth faster."""
    if changes is None:
        yield
        return
    changes.leave()
    try:
        yield
    finally:
        changes.join()


@contextlib.contextmanager
def answering(changes: Changes | None, written: Callable[[], int]) -> Iterator[None]:
    """Around a look: what was heard before is answered by it. written: rises with what the look finds to mend."""
    if changes is None:
        yield
        return
    changes.drain()
    started, before, fruitless = time.monotonic(), written(), 0.0
    try:
        yield
        if written() == before:
            fruitless = time.monotonic() - started
    finally:
        changes.resume(min(max(_REST, _SHARE * fruitless), _LONGEST_REST))
