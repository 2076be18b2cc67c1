"""Files that a reader sees whole or not at all, and that survive power loss where they must. Fails with OSError."""

from __future__ import annotations

import os
from pathlib import Path


def replace(path: Path, data: bytes, mode: int = 0o600, *, synced: bool = False) -> None:
    """Put `data` at `path` whole or not at all; `synced` for what must survive power loss."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        write_all(descriptor, data)
        if synced:
            os.fsync(descriptor)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
    if synced:
        sync(path.parent)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it; a part, where it fails."""
    # On a disk that is nearly full the first write takes a part, and only the next one fails.
    written = 0
    while written < len(data):
        written += os.write(descriptor, data[written:])


def sync(path: Path) -> None:
    """What is in a file or directory is on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
