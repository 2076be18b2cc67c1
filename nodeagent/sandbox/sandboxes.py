"""The sandboxes of a node: made, removed and found again by pod uid and attempt.

    run/sandboxes/<uid>_<attempt>/{net,uts,ipc}, shm/     what stands (namespaces.py)
                                  pid, pause                       where the containers share their processes
                                  made                             written last: what was asked for

Owns these directories; never decides when a sandbox is made or removed and keeps no memory of its own: every answer
comes from the directory and the kernel, so that a restarted agent finds what the last one left. Each step is
idempotent; one sandbox at a time is worked on by one caller. Fails with SandboxFailure; what is half made then is
finished by another create, or taken away by remove.
"""

from __future__ import annotations

import asyncio
import builtins
import json
import logging
import os
import socket
from pathlib import Path
from weakref import WeakValueDictionary

from nodeagent import syscalls
from nodeagent.sandbox import namespaces, processes, sysctl, sysctls
from nodeagent.sandbox.failure import SandboxFailure
from nodeagent.sandbox.network import Network
from nodeagent.sandbox.processes import Pauses, SharedProcesses
from nodeagent.sandbox.threads import in_fresh_thread
from nodeagent.types import Sandbox, SandboxRequest

__all__ = ["SandboxFailure", "Sandboxes"]

log = logging.getLogger(__name__)

_MADE = "made"
_NODE_SHM = Path("/dev/shm")
"""Shared memory of the node: with hostIPC the pod's as well."""
_KERNEL_CLEANS = 1.0
"""Seconds in which the kernel has long taken a dead namespace's links away (it batches: some 50 ms)."""


class Sandboxes:
    """Every sandbox below run. `network` is None where the node runs host-network pods only."""

    def __init__(self, run: Path, network: Network | None, pauses: Pauses | None = None) -> None:
        self._root = run / "sandboxes"
        self._network = network
        self._shared = SharedProcesses(pauses)
        self.lost = self._shared.lost
        self._private = False
        self._leaving: set[asyncio.Task[None]] = set()
        self._busy: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def create(self, request: SandboxRequest) -> Sandbox:
        """Make the sandbox, or finish it, or find it done. Raises SandboxFailure."""
        async with self._alone(request.id):
            box = await in_fresh_thread(lambda: self._create(request), f"sandbox-{request.id[:8]}")
            return await self._share_processes(request, box) if request.pause_cgroup else box

    async def _share_processes(self, request: SandboxRequest, box: Sandbox) -> Sandbox:
        directory = self._root / request.id
        if box.pid is None:
            await self._shared.make(directory, box, request.pause_cgroup)
            box = self._finish(request, directory)
        self._shared.watch(directory, box)
        return box

    def watch(self, box: Sandbox) -> None:
        """Tell through `lost` when a sandbox that was found ends by itself."""
        if box.pid is not None:
            self._shared.watch(self._root / box.id, box)

    async def remove(self, pod_uid: str, attempt: int) -> None:
        """Remove every trace of the sandbox; nothing to do where there is none. Raises SandboxFailure."""
        name = f"{pod_uid}_{attempt}"
        async with self._alone(name):
            await self._shared.end(self._root / name)
            await in_fresh_thread(lambda: self._remove(pod_uid, attempt), f"unsandbox-{name[:8]}")
            task = asyncio.create_task(self._check_link(pod_uid, attempt), name=f"unlink-{name}")
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def list(self) -> builtins.list[Sandbox]:
        """Every sandbox that stands whole, by what is mounted now."""
        return await asyncio.to_thread(self._list)

    async def half_made(self) -> builtins.list[tuple[str, int]]:
        """(pod uid, attempt) of what is neither whole nor gone: to be created again or removed."""
        whole = {item.id for item in await self.list()}
        names = await asyncio.to_thread(self._names)
        split = [name.rpartition("_") for name in names if name not in whole]
        return [(uid, int(attempt)) for uid, _, attempt in split if uid and attempt.isdigit()]

    async def cleanup(self) -> None:
        """Remove every sandbox and the directory that held them. Raises SandboxFailure."""
        whole = [(item.pod_uid, item.attempt) for item in await self.list()]
        for pod_uid, attempt in [*whole, *await self.half_made()]:
            await self.remove(pod_uid, attempt)
        await asyncio.to_thread(self._remove_root)

    def _remove_root(self) -> None:
        try:
            syscalls.unmount(self._root)
            if self._root.exists():
                self._root.rmdir()
        except OSError as error:
            raise SandboxFailure(f"cannot remove {self._root}: {error}") from error
        self._private = False

    def _alone(self, name: str) -> asyncio.Lock:
        """The lock of one sandbox; it goes when nobody holds or awaits it."""
        return self._busy.setdefault(name, asyncio.Lock())

    async def _check_link(self, pod_uid: str, attempt: int) -> None:
        """Take the pod's link away if the kernel did not: a process that is stuck keeps a namespace alive.

        It goes with its namespace otherwise, which costs nobody the 40 ms that the kernel's answer to a removal takes.
        """
        await asyncio.sleep(_KERNEL_CLEANS)
        name = f"{pod_uid}_{attempt}"
        async with self._alone(name):
            if self._network is None or (self._root / name).exists():
                return
            try:
                await asyncio.to_thread(self._network.detach, pod_uid, attempt)
            except OSError as error:
                log.warning("cannot remove the link of a pod that is gone (uid %s): %s", pod_uid, error)

    def _create(self, request: SandboxRequest) -> Sandbox:
        directory = self._root / request.id
        _check(request)
        try:
            if (found := _read(directory)) is not None:
                return found
            if not self._private:
                namespaces.ensure_private(self._root)
                self._private = True
            directory.mkdir(mode=0o700, exist_ok=True)
            self._build(request, directory)
            if request.pause_cgroup:
                return _sandbox(directory, request.address, _kinds(request))
            return self._finish(request, directory)
        except OSError as error:
            raise SandboxFailure(f"cannot make the pod's sandbox: {error}") from error

    def _finish(self, request: SandboxRequest, directory: Path) -> Sandbox:
        kinds = [*_kinds(request), *([processes.PIN] if request.pause_cgroup else [])]
        processes.write(directory / _MADE, {"address": request.address, "kinds": kinds})
        return _sandbox(directory, request.address, kinds)

    def _build(self, request: SandboxRequest, directory: Path) -> None:
        kinds = _kinds(request)
        if kinds:
            namespaces.enter(directory, kinds)
        if "uts" in kinds:
            socket.sethostname(request.hostname)
        if "ipc" in kinds:
            namespaces.mount_shm(directory)
        if "net" in kinds:
            self._attach(request, directory)
        for name, value in request.sysctls.items():
            sysctl.write(sysctls.canonical(name), value)

    def _attach(self, request: SandboxRequest, directory: Path) -> None:
        if self._network is None or request.address is None:
            raise SandboxFailure("cannot make the pod's sandbox: this node has no pod network")
        fd = os.open(directory / "net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._network.attach(fd, request.pod_uid, request.attempt, request.address)
        finally:
            os.close(fd)

    def _remove(self, pod_uid: str, attempt: int) -> None:
        directory = self._root / f"{pod_uid}_{attempt}"
        try:
            # First of all it stops being whole: a removal that is cut off here is found by half_made().
            (directory / _MADE).unlink(missing_ok=True)
            namespaces.remove(directory)
        except OSError as error:
            raise SandboxFailure(f"cannot remove the pod's sandbox: {error}") from error

    def _names(self) -> builtins.list[str]:
        return sorted(entry.name for entry in self._root.iterdir()) if self._root.exists() else []

    def _list(self) -> builtins.list[Sandbox]:
        found = (_read(self._root / name) for name in self._names())
        return [item for item in found if item is not None]


def _kinds(request: SandboxRequest) -> list[str]:
    """The namespaces that the pod has by itself: with the node's network it has the node's name as well."""
    own = [] if request.host_network else ["net", "uts"]
    return own if request.host_ipc else [*own, "ipc"]


def _check(request: SandboxRequest) -> None:
    for name in request.sysctls:
        if reason := sysctls.shared(name, request.host_network, request.host_ipc):
            raise SandboxFailure(reason)
    if request.id != os.path.basename(request.id) or request.pod_uid in ("", ".", ".."):
        raise SandboxFailure(f"cannot make a sandbox for the pod uid {request.pod_uid!r}")


def _read(directory: Path) -> Sandbox | None:
    """The sandbox in directory, if it was finished and all that it is made of is still mounted."""
    try:
        made = json.loads((directory / _MADE).read_text())
    except (FileNotFoundError, ValueError):
        return None
    kinds = made["kinds"]
    mounts = [*kinds, "shm"] if "ipc" in kinds else kinds
    if not all(namespaces.is_mounted(directory / name) for name in mounts):
        return None
    if processes.PIN in kinds and not processes.lives(directory):
        return None
    return _sandbox(directory, made["address"], kinds)


def _sandbox(directory: Path, address: str | None, kinds: list[str]) -> Sandbox:
    pod_uid, _, attempt = directory.name.rpartition("_")
    own = {name: directory / name for name in kinds}
    return Sandbox(
        pod_uid=pod_uid,
        attempt=int(attempt),
        address=address,
        net=own.get("net"),
        uts=own.get("uts"),
        ipc=own.get("ipc"),
        shm=directory / "shm" if "ipc" in own else _NODE_SHM,
        pid=own.get(processes.PIN),
    )
