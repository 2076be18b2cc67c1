"""One process per store directory: an flock that ends with its holder, however it ends.

Owns the lock file and nothing else. Refuses a second process with Unavailable, naming the first by its pid.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from podplane.errors import Unavailable


class DirectoryLock:
    """Held from construction to `release`. The file stays behind: removing it would let two holders in."""

    def __init__(self, directory: Path) -> None:
        self._fd = os.open(directory / "store.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise Unavailable(f"cannot open the store in {directory}: process {holder} is using it") from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._fd)
