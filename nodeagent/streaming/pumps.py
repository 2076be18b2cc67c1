"""Bytes between descriptors and streams, never more than one chunk in hand: whoever is slow slows the other side.

Works on non-blocking descriptors that their owner closes. Fails with OSError.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

CHUNK = 64 << 10
_LEFT = 1 << 20
"""Bytes that a pipe may hold at most (fs.pipe-max-size) for a process that has ended."""


async def readable(fd: int) -> None:
    """Return once there is something to read, or the end."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


async def writable(fd: int) -> None:
    """Return once a write can go on, or fails."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(fd, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_writer(fd)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def write_all(fd: int, data: bytes) -> None:
    """Write everything. Raises OSError, where nobody reads any more."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await writable(fd)


class Source:
    """What can be read of one descriptor, to its end or, once `finish` was called, to what is there already."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._over = False
        self._waiting: asyncio.Task[None] | None = None

    def finish(self) -> None:
        """The writer has ended: give what it has left; what its children may still write is not waited for."""
        self._over = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes, in pieces of at most CHUNK."""
        after = 0
        while after < _LEFT:
            try:
                data = os.read(self._fd, CHUNK)
            except BlockingIOError:
                if self._over:
                    return
                await self._ready()
                continue
            except OSError as error:
                if error.errno == errno.EIO:  # a terminal whose other end is closed
                    return
                raise
            if not data:
                return
            after += len(data) if self._over else 0
            yield data

    async def _ready(self) -> None:
        self._waiting = asyncio.ensure_future(readable(self._fd))
        try:
            await asyncio.wait({self._waiting})
        finally:
            self._waiting.cancel()
            self._waiting = None


class Incoming:
    """Data that came in and waits to be passed on; its size is bounded by the stream's window."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._closed = False

    def put(self, data: bytes) -> None:
        if data:
            self._waiting.append(data)
            self._arrived.set()

    def close(self) -> None:
        """No more is coming."""
        self._closed = True
        self._arrived.set()

    async def pour(self, write: Callable[[bytes], Awaitable[None]], taken: Callable[[int], Awaitable[None]]) -> None:
        """Pass everything on, in order, until the end. Where nobody reads any more the rest is dropped."""
        broken = False
        while True:
            while self._waiting:
                data = self._waiting.popleft()
                if not broken:
                    try:
                        await write(data)
                    except OSError:
                        broken = True
                await taken(len(data))
            if self._closed:
                return
            self._arrived.clear()
            await self._arrived.wait()


def close(*fds: int) -> None:
    """Close what is open; negative numbers stand for nothing."""
    for fd in fds:
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)
