"""Finding bytes of secrets where they must not be (the ledger's L8). Reads files only.

A secret is looked for by a value that occurs nowhere else, plain and in base64.
"""

from __future__ import annotations

import base64
import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

_LARGEST = 64 << 20


def found_in(data: bytes, canaries: Mapping[str, str]) -> list[str]:
    """The canaries (what it is -> its value) that are there, plain or in base64 at any offset."""
    return [what for what, value in canaries.items() if any(form in data for form in forms(value))]


def forms(value: str) -> Iterator[bytes]:
    """How a value may be written."""
    plain = value.encode()
    yield plain
    for shift in range(3):  # only what does not depend on the neighbours
        yield base64.b64encode(b"\0" * shift + plain)[4:-4]


def holding(
    top: Path,
    canaries: Mapping[str, str],
    *,
    but: tuple[Path, ...] = (),
    over_mounts: bool = False,
    since: float = 0.0,
) -> Iterator[tuple[Path, str]]:
    """(file, canary) of every file below `top` that was changed since; on its own filesystem, unless `over_mounts`."""
    device = top.stat().st_dev
    for directory, directories, names in os.walk(top):
        directories[:] = [name for name in directories if name != "rootfs" and Path(directory, name) not in but]
        for name in names:
            path = Path(directory, name)
            with contextlib.suppress(OSError):
                info = path.lstat()
                here = (over_mounts or info.st_dev == device) and info.st_mtime >= since
                if here and stat.S_ISREG(info.st_mode) and info.st_size < _LARGEST:
                    yield from ((path, what) for what in found_in(path.read_bytes(), canaries))
