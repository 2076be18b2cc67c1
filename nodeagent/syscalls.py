"""The system calls that Python 3.11 lacks: mount, umount2, unshare, setns, and pidfds with errors that say more.

Each function but unmount is the call and nothing else, and raises OSError with the kernel's errno and what was asked.
unshare and setns change the calling THREAD: use them in a thread made for the purpose, never in a pool's.
Sources: the man pages of section 2; the constants are those of <sys/mount.h> and <linux/sched.h>.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from pathlib import Path

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_NOATIME = 0x400
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000

MNT_FORCE = 1
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

_PIDFD_GETFD = 438

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]


def _check(result: int, asked: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{asked}: {os.strerror(number)}")


def mount(source: str | Path | None, target: str | Path, fstype: str | None, flags: int = 0, data: str = "") -> None:
    """Mount a filesystem, or change one (MS_BIND, MS_REMOUNT, MS_PRIVATE ...). data: at most one page."""
    arguments = [None if item is None else os.fsencode(item) for item in (source, target, fstype)]
    result = _libc.mount(*arguments, flags, data.encode() or None)
    _check(result, f"mount {fstype or source} on {target} (flags {flags:#x}, {data or 'no data'})")


def umount2(target: str | Path, flags: int = 0) -> None:
    """Unmount what is mounted on target. EINVAL: nothing is."""
    _check(_libc.umount2(os.fsencode(target), flags), f"umount {target} (flags {flags:#x})")


def unmount(target: Path) -> None:
    """Take off everything that is mounted on target, however often; nothing to do where nothing is."""
    while True:
        try:
            umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return
            raise


def unshare(flags: int) -> None:
    """Give the calling thread namespaces of its own."""
    _check(_libc.unshare(flags), f"unshare {flags:#x}")


def setns(fd: int, kind: int = 0) -> None:
    """Move the calling thread into the namespace that fd stands for; kind 0 accepts any."""
    _check(_libc.setns(fd, kind), f"setns of fd {fd} (kind {kind:#x})")


def pidfd_open(pid: int) -> int:
    """Open a handle (close-on-exec) of a process. ProcessLookupError: it is gone."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        raise OSError(error.errno, f"pidfd_open of process {pid}: {error.strerror}") from None


def pidfd_send_signal(pidfd: int, number: int) -> None:
    """Signal the process behind a pidfd, whoever has its number now. ProcessLookupError: it is gone."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except OSError as error:
        raise OSError(error.errno, f"signal {number} to pidfd {pidfd}: {error.strerror}") from None


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """Duplicate (close-on-exec) a descriptor of another process. EBADF: it has none of that number."""
    made: int = _libc.syscall(_PIDFD_GETFD, pidfd, fd, 0)
    if made < 0:
        _check(made, f"pidfd_getfd of fd {fd}")
    return made
