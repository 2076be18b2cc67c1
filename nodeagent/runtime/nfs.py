"""NFS volumes: the kernel's client, mounted by mount.nfs, each in a process with a deadline.

Owns run/nfs/<uid>/<name>. A server that does not answer holds up its own pod and nothing else: neither the agent nor a
thread of its ever looks into a mount (what is mounted is read from /proc), and what may wait for a server is a process
that is killed. Nothing here deletes a file: directories are removed by rmdir after they are unmounted. Fails with
OSError in mount.nfs's words.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from nodeagent.runtime.command import SEARCH_PATH
from nodeagent.runtime.process import ProgramTimeout, run
from podplane.v1.volume_pb2 import NFSVolumeSource

MOUNT_DEADLINE = 60.0
UMOUNT_DEADLINE = 10.0
_MOUNTS = Path("/proc/self/mountinfo")


class NfsMounts:
    """The NFS mounts of one node's pods."""

    def __init__(self, run: Path) -> None:
        self._base = run / "nfs"

    async def mount(self, uid: str, name: str, asked: NFSVolumeSource) -> Path:
        """Mount an export, unless it is mounted already; returns where. Raises OSError."""
        target = self._base / uid / name
        if str(target) in mounted():
            return target
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        argv = [_program("mount.nfs", "nfs-common"), *arguments(asked, target)]
        await _run(argv, f"mount of {export(asked)}", MOUNT_DEADLINE)
        return target

    async def remove(self, uid: str) -> None:
        """Unmount everything of a pod, whether its servers answer or not. Idempotent. Raises OSError."""
        base = self._base / uid
        for target in [point for point in mounted() if point.startswith(f"{base}/")]:
            # By force, so that what waits for the server ends; lazily, so that we do not wait for it. Without the
            # helper and without a look at the path, which would ask the server.
            argv = [_program("umount", "mount"), "-i", "-c", "-n", "-f", "-l", target]
            try:
                await _run(argv, f"unmount of {target}", UMOUNT_DEADLINE)
            except OSError:
                # The last mount of a server that is gone is off at once, and then waits in the kernel for the server.
                if target in mounted():
                    raise
        await asyncio.to_thread(_remove_directories, base)


def export(asked: NFSVolumeSource) -> str:
    """server:path, as mount.nfs takes it."""
    server = f"[{asked.server}]" if ":" in asked.server else asked.server
    return f"{server}:{asked.path}"


def arguments(asked: NFSVolumeSource, target: Path) -> list[str]:
    """What mount.nfs is run with. It tries once: the pod's back-off is what tries again, and tells of each failure."""
    return [export(asked), str(target), "-o", f"{'ro' if asked.readOnly else 'rw'},retry=0"]


def mounted() -> list[str]:
    """Every mount point of the agent's mount namespace, in mount order; nothing is asked of a server."""
    return list(_points(_MOUNTS.read_text()))


def _points(mountinfo: str) -> Iterator[str]:
    for line in mountinfo.splitlines():
        yield line.split(" ")[4].encode().decode("unicode_escape")


def _program(name: str, package: str) -> str:
    found = shutil.which(name, path=SEARCH_PATH)
    if found is None:
        raise OSError(f"mount failed: {name} is not installed on the node: install the package {package}")
    return found


async def _run(argv: list[str], what: str, deadline: float) -> None:
    try:
        done = await run(argv, deadline=deadline)
    except ProgramTimeout as error:
        raise OSError(f"{what} failed: the server does not answer: {error}") from error
    if done.code != 0:
        raise OSError(f"{what} failed: {done.words}")


def _remove_directories(base: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        for target in sorted(base.iterdir()):
            os.rmdir(target)
        os.rmdir(base)
