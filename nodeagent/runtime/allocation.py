"""Where ext4 puts what is made in a directory: each entry apart from the others (chattr(1), T).

The directories of containers have nothing to do with each other, but ext4 puts them all into one group of inodes. A
group has one lock; and without a journal the kernel passes over every inode in it that was freed in the last minutes,
one after the other, for each new file: on a node where pods come and go that was a tenth of a start's CPU.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import struct
from pathlib import Path

_LONG = struct.calcsize("l")
_GET_FLAGS, _SET_FLAGS = 0x80006601 | _LONG << 16, 0x40006602 | _LONG << 16
"""FS_IOC_GETFLAGS, FS_IOC_SETFLAGS (linux/fs.h)."""
_TOP_DIRECTORY = 0x00020000
"""FS_TOPDIR_FL."""


def spread(directory: Path) -> None:
    """Have entries of a directory put apart from now on; nothing on a filesystem that knows no such thing."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # ENOTTY, EOPNOTSUPP
            flags = array.array("i", [0])
            fcntl.ioctl(fd, _GET_FLAGS, flags)
            flags[0] |= _TOP_DIRECTORY
            fcntl.ioctl(fd, _SET_FLAGS, flags)
    finally:
        os.close(fd)
