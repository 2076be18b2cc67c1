"""Opening paths of a container's or a volume's making without ever leaving its directory: openat2(2).

A path that a container wrote may be a symlink to anywhere. read_in_root resolves it as a chroot would;
open_beneath refuses to leave at all; open_child takes one name and no symlink. They fail with OSError (ELOOP, EXDEV:
the path tries to leave; EAGAIN: somebody renames faster than the kernel can tell).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
_OPENAT2 = 437
_TRIES = 128
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _openat2(directory: int, path: str, flags: int, mode: int, resolve: int) -> int:
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    number = 0
    # EAGAIN: the kernel could not tell whether a rename during the walk has led it out. Not for ever: that would hang.
    for _ in range(_TRIES):
        fd: int = _libc.syscall(_OPENAT2, directory, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number != errno.EAGAIN:
            break
    raise OSError(number, os.strerror(number), path)


@contextlib.contextmanager
def directory(path: Path) -> Iterator[int]:
    """An O_PATH descriptor of a trusted directory."""
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def open_beneath(root: int, path: str, flags: int, mode: int = 0) -> int:
    """Open a relative path below a directory descriptor, refusing every way out of it."""
    return _openat2(root, path, flags, mode, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)


def open_child(parent: int, name: str, flags: int) -> int:
    """Open one entry of a directory descriptor, never through a symlink."""
    return _openat2(parent, name, flags, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)


def read_in_root(root: int, path: str, limit: int) -> str:
    """The first `limit` bytes of a file, as if the directory `root` were /; "" where there is none.

    Absolute symlinks and .. stay inside.
    """
    try:
        # O_NONBLOCK: a fifo in its place must not hang the agent.
        fd = _openat2(root, path, os.O_RDONLY | os.O_NONBLOCK, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except OSError:
        return ""
    try:
        return os.read(fd, limit).decode(errors="replace")
    except OSError:  # a directory, or a fifo that somebody writes to
        return ""
    finally:
        os.close(fd)
