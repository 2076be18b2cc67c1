"""Who is attached to which container: connections to conmon, its terminal's size, its end.

Owns the connections that must outlive their callers: where stdinOnce holds, conmon closes the container's stdin when
anybody leaves, also one who only looked on. Such a one's connection is kept, and takes nothing more, until the
container has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket

from nodeagent.pods.state import ContainerState
from nodeagent.runtime.containers import ContainerRuntime
from nodeagent.runtime.inotify import IN_CLOSE_WRITE, IN_MOVED_TO, Inotify
from nodeagent.streaming.call import Refused

_APART = 0.1
"""Seconds between two sizes of one terminal."""
_END_SECONDS = 10.0
log = logging.getLogger(__name__)


class Attached:
    """The attached callers of one node's containers."""

    def __init__(self, runtime: ContainerRuntime, events: Inotify) -> None:
        self._runtime, self._events = runtime, events
        self._kept: list[tuple[str, socket.socket]] = []
        self._sizes: dict[str, tuple[int, int] | None] = {}

    def connect(self, id: str, container: str) -> socket.socket:
        """A new connection to the container's stdio. Raises Refused."""
        self._release()
        try:
            return self._runtime.attach(id)
        except (FileNotFoundError, ConnectionRefusedError):
            raise Refused("NOT_FOUND", f'container not found ("{container}")') from None
        except OSError as error:
            raise Refused("UNAVAILABLE", f"cannot attach to container {container}: {error}") from error

    def let_go(self, id: str, connection: socket.socket, *, keeps_stdin: bool) -> None:
        """The caller has left."""
        if keeps_stdin:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)  # conmon writes to it no more, and waits for nobody
            self._kept.append((id, connection))
        else:
            connection.close()

    def resize(self, id: str, width: int, height: int) -> None:
        """Give the container's terminal its size; one that ends at this moment needs none.

        conmon loses a size that it reads together with another: they go a moment apart, of several the last.
        """
        if id in self._sizes:
            self._sizes[id] = width, height
            return
        self._sizes[id] = None
        asyncio.get_running_loop().call_later(_APART, self._next_size, id)
        try:
            self._runtime.resize(id, width, height)
        except OSError as error:
            log.info("cannot resize the terminal of container %s: %s", id, error)

    def _next_size(self, id: str) -> None:
        size = self._sizes.pop(id)
        if size is not None:
            self.resize(id, *size)

    async def end(self, id: str, container: ContainerState) -> int | None:
        """The exit code of a container whose output has ended: conmon writes it after that."""
        attempt = int(id.rpartition("_")[2])
        changed = asyncio.Event()
        mask = IN_CLOSE_WRITE | IN_MOVED_TO
        watch = self._events.watch(self._runtime.exit_directory, mask, lambda _mask, _name: changed.set())
        try:
            async with asyncio.timeout(_END_SECONDS):
                while (code := self._code(id, container, attempt)) is None:
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            return None
        finally:
            self._events.forget(watch)
        return code

    def _code(self, id: str, container: ContainerState, attempt: int) -> int | None:
        code = self._runtime.exit_code(id)
        if code is not None:
            return code
        known = (one for one in (container.ended, container.last) if one is not None and one.attempt == attempt)
        return next((one.code for one in known), None)

    def _release(self) -> None:
        """Close what was kept for containers that have ended."""
        for entry in [one for one in self._kept if self._runtime.pid(one[0]) is None]:
            self._kept.remove(entry)
            entry[1].close()

    def close(self) -> None:
        """Let go of everything."""
        for _, connection in self._kept:
            connection.close()
        self._kept.clear()
