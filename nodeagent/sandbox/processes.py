"""The pid namespace that a pod's containers share: pinned beside the others, and alive while its pause process is.

    <directory>/pause    {"cgroup": where the pause process is, "pid": its number; 0: not known yet}
    <directory>/pid      a bind mount of the namespace; what joins it cannot mean another one

Owns these and one pidfd each. The pause process itself is made and ended by what the caller gives (runtime/pause.py).
The end of one is told once through `lost`: the kernel ends every process of the pod with it. Fails with SandboxFailure.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
from pathlib import Path
from typing import Protocol

from nodeagent import smallfiles, syscalls
from nodeagent.sandbox import namespaces
from nodeagent.sandbox.failure import SandboxFailure
from nodeagent.types import RuntimeFailure, Sandbox

PIN = "pid"
_NOTE = "pause"


class Pauses(Protocol):
    """Who makes pause processes."""

    async def start(self, box: Sandbox, cgroup: str) -> int: ...
    async def end(self, id: str, cgroup: str) -> None: ...


class SharedProcesses:
    """Of one node. `pauses`: None where no pod shares its processes."""

    def __init__(self, pauses: Pauses | None) -> None:
        self.lost: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
        """(pod uid, attempt) of sandboxes whose pause process has ended by itself."""
        self._pauses = pauses
        self._pidfds: dict[str, int] = {}

    async def make(self, directory: Path, box: Sandbox, cgroup: str) -> None:
        """Start the pause process of a sandbox and pin its namespace; what there is of an earlier one goes first."""
        if self._pauses is None:
            raise SandboxFailure("this node runs no pods whose containers share their processes")
        await self.end(directory)
        write(directory / _NOTE, {"cgroup": cgroup, "pid": 0})
        try:
            pid = await self._pauses.start(box, cgroup)
            (directory / PIN).touch(mode=0o600)
            syscalls.mount(f"/proc/{pid}/ns/pid", directory / PIN, None, syscalls.MS_BIND)
        except RuntimeFailure as failure:
            raise SandboxFailure(failure.message) from failure
        except OSError as error:
            raise SandboxFailure(f"cannot pin the pod's pid namespace: {error}") from error
        write(directory / _NOTE, {"cgroup": cgroup, "pid": pid})

    def watch(self, directory: Path, box: Sandbox) -> None:
        """Tell the end of a sandbox's pause process from now on; at once where it has ended already."""
        self.forget(box.id)
        pidfd = _living(directory)
        if pidfd is None:
            self.lost.put_nowait((box.pod_uid, box.attempt))
            return
        self._pidfds[box.id] = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._ended, box)

    def forget(self, id: str) -> None:
        """Tell nothing more of a sandbox."""
        pidfd = self._pidfds.pop(id, None)
        if pidfd is not None:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)

    async def end(self, directory: Path) -> None:
        """End the pause process that a sandbox has, if any, and unpin its namespace."""
        self.forget(directory.name)
        note = _note(directory)
        if note is None:
            return
        if self._pauses is None:
            raise SandboxFailure(f"nobody can end the pause process of {directory.name}")
        try:
            await self._pauses.end(directory.name, str(note["cgroup"]))
        except (RuntimeFailure, OSError) as failure:
            raise SandboxFailure(f"cannot end the pod's pause process: {failure}") from failure
        syscalls.unmount(directory / PIN)

    def _ended(self, box: Sandbox) -> None:
        self.forget(box.id)
        self.lost.put_nowait((box.pod_uid, box.attempt))


def lives(directory: Path) -> bool:
    """Whether the pinned namespace has its first process still, so that others can be born there."""
    pidfd = _living(directory)
    if pidfd is None:
        return False
    os.close(pidfd)
    return True


def write(path: Path, content: object) -> None:
    """Write a note of a sandbox whole or not at all."""
    draft = path.with_name(f".{path.name}")
    smallfiles.write(draft, json.dumps(content).encode(), 0o644)
    draft.rename(path)


def _note(directory: Path) -> dict[str, object] | None:
    try:
        found: dict[str, object] = json.loads((directory / _NOTE).read_text())
    except FileNotFoundError:
        return None
    return found


def _living(directory: Path) -> int | None:
    """A pidfd of the pause process. By the namespace that it is in: its number may be another's by now."""
    note = _note(directory)
    if not note or not note["pid"] or not namespaces.is_mounted(directory / PIN):
        return None
    pid = int(str(note["pid"]))
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        with contextlib.suppress(OSError):
            same = os.path.samestat(os.stat(f"/proc/{pid}/ns/pid"), os.stat(directory / PIN))
            if same and not select.select([pidfd], [], [], 0)[0]:  # readable: it has ended, and nobody has reaped it
                return pidfd
        os.close(pidfd)
    return None
