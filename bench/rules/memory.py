"""The kernel's memory on account of one process: a memory cgroup of its own, made here and removed again.

Rules, sets and their elements are charged to whoever makes them. Where no such group can be had nothing is known, and
that is the answer: None.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from tests.support.waiting import eventually

_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@contextlib.contextmanager
def group(name: str) -> Iterator[Path | None]:
    """A group that is there meanwhile; None where none can be made. Who is in it must have ended by then."""
    made = (_V1 if (_V1 / "cgroup.procs").exists() else _V2) / f"podplane-bench-{os.getpid()}-{name}"
    try:
        made.mkdir()
    except OSError:
        yield None
        return
    try:
        yield made
    finally:
        eventually(lambda: _removed(made), 10, f"the end of all processes in {made}")


def _removed(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def enter(path: Path | None) -> None:
    """Put the calling process, and those that it starts, on the account of a group."""
    if path is not None:
        (path / "cgroup.procs").write_text(str(os.getpid()))


def kernel_megabytes(path: Path | None) -> float | None:
    """What the kernel holds for a group now."""
    if path is None:
        return None
    with contextlib.suppress(OSError):
        return int((path / "memory.kmem.usage_in_bytes").read_text()) / 1e6
    with contextlib.suppress(OSError):
        for line in (path / "memory.stat").read_text().splitlines():
            if line.startswith("kernel "):
                return int(line.split()[1]) / 1e6
    return None
