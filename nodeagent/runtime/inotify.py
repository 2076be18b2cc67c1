"""One inotify instance on the event loop: a callback per watch, no thread and no polling.

Never reads files. An overflow of the kernel's queue is told to every callback (name ""), since any of them may
have lost an event. Fails with OSError (no such path, limit of watches). Source: inotify(7).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path

IN_MODIFY = 0x2
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_IGNORED = 0x8000
IN_Q_OVERFLOW = 0x4000

_HEADER = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)

Callback = Callable[[int, str], None]
"""Called with the event mask and the name inside a watched directory."""


def _checked(result: int, asked: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot {asked}: {os.strerror(number)}")
    return result


class Inotify:
    """Watches of files and directories; close() ends them all."""

    def __init__(self) -> None:
        self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "make an inotify instance")
        self._callbacks: dict[int, dict[int, Callback]] = {}
        self._tokens = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._read)

    def watch(self, path: Path, mask: int, callback: Callback) -> tuple[int, int]:
        """Call back for each event of the mask; the result is for forget(). A path may be watched more than once."""
        wd = _checked(_libc.inotify_add_watch(self._fd, os.fsencode(path), mask | 0x20000000), f"watch {path}")
        self._tokens += 1
        self._callbacks.setdefault(wd, {})[self._tokens] = callback
        return wd, self._tokens

    def forget(self, watch: tuple[int, int]) -> None:
        """End one watch; harmless if its file is gone."""
        wd, token = watch
        callbacks = self._callbacks.get(wd, {})
        if callbacks.pop(token, None) is not None and not callbacks:
            del self._callbacks[wd]
            _libc.inotify_rm_watch(self._fd, wd)

    def close(self) -> None:
        """End every watch."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._callbacks.clear()

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            wd, mask, _cookie, length = _HEADER.unpack_from(data, offset)
            offset += _HEADER.size
            name = data[offset : offset + length].rstrip(b"\0").decode(errors="surrogateescape")
            offset += length
            self._deliver(wd, mask, name)

    def _deliver(self, wd: int, mask: int, name: str) -> None:
        if mask & IN_Q_OVERFLOW:
            for callbacks in list(self._callbacks.values()):
                for callback in list(callbacks.values()):
                    callback(mask, "")
            return
        for callback in list(self._callbacks.get(wd, {}).values()):
            callback(mask, name)
        if mask & IN_IGNORED:
            self._callbacks.pop(wd, None)
