"""nft's commits, as the kernel tells of them by netlink: how many there have been, and which of them a process made.

What a process writes is in force once the kernel has told of its commit. Its end comes 10 ms later, of so many
services: closing its socket, it waits until the kernel has freed what was replaced. Owns two sockets of the namespace
that it was opened in, for as long as it is: closing them waits just so. Fails with OSError. Source:
linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterator

from nodeagent import netlink
from nodeagent.proxy.changes import RULES, Group

_NEWGEN, _GETGEN = 10 << 8 | 15, 10 << 8 | 16
_GEN_ID, _GEN_PROC_PID = 1, 2
_HEADER = struct.pack("!BBH", 0, 0, 0)
_NFGENMSG = 4
_MESSAGE = struct.Struct("=IH10x")  # struct nlmsghdr: its length and type
_FIRST_PIDS = "pid:[4026531836]"
"""PROC_PID_INIT_INO: of the machine's first pid namespace."""


def tells() -> bool:
    """Whether the kernel tells of this process's children by the numbers that it knows them by."""
    return os.readlink("/proc/self/ns/pid") == _FIRST_PIDS


class Commits:
    """For use on one loop's thread."""

    def __init__(self) -> None:
        self._asking = netlink.Socket(RULES[0])
        try:
            self._hearing = Group(RULES)
        except BaseException:
            self._asking.close()
            raise

    def close(self) -> None:
        self._hearing.close()
        self._asking.close()

    def generation(self) -> int:
        """How many commits there have been, of anybody."""
        body = self._asking.ask(netlink.Request(_GETGEN, 0, _HEADER, "ask for the nftables generation"))
        return int.from_bytes(netlink.attributes(body, _NFGENMSG)[_GEN_ID], "big")

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """All that are made meanwhile are kept for by()."""
        self._hearing.drain()
        self._hearing.join()
        try:
            yield
        finally:
            self._hearing.leave()

    async def by(self, pid: int, count: int) -> None:
        """Return once a process has made so many. For as long as heard(); it may be forever, if some went unheard."""
        while count > 0:
            try:
                messages = await self._hearing.receive()
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
            else:
                count -= sum(made_by == pid for made_by in _commits(messages))


def _commits(messages: bytes) -> Iterator[int]:
    """Whose they are."""
    offset = 0
    while offset + _MESSAGE.size <= len(messages):
        length, kind = _MESSAGE.unpack_from(messages, offset)
        if kind == _NEWGEN:
            found = netlink.attributes(messages[offset : offset + length], _MESSAGE.size + _NFGENMSG)
            yield int.from_bytes(found.get(_GEN_PROC_PID, b""), "big")
        offset += length + (-length % 4)
