"""A pod's namespaces and mounts, pinned below one directory: the pause sandbox without a pause process.

    <directory>/net, uts, ipc    bind mounts of the namespaces: they live as long as these
    <directory>/shm              the pod's /dev/shm

The pod's message queues are its ipc namespace's: each container mounts them for itself.
Everything blocks, and `enter` changes the calling thread for good: call it in a thread that ends afterwards.
Raises OSError. Sources: namespaces(7), mq_overview(7).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from nodeagent import syscalls

NAMESPACES = {"net": syscalls.CLONE_NEWNET, "uts": syscalls.CLONE_NEWUTS, "ipc": syscalls.CLONE_NEWIPC}
_QUIET = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
_SHM_SIZE = "65536k"


def ensure_private(directory: Path) -> None:
    """See to it that mounts below directory do not travel to other mount namespaces.

    On a systemd machine `/` is shared: a pin would be copied into every service's namespace and outlive its removal.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    mount = mount_of(directory)
    if mount.shared:
        if mount.point != str(directory.resolve()):
            syscalls.mount(directory, directory, None, syscalls.MS_BIND)
        syscalls.mount(None, directory, None, syscalls.MS_PRIVATE)


def release_private(directory: Path) -> None:
    """Take off what ensure_private has mounted on directory: a bind of itself, no filesystem that others put there."""
    if not directory.exists() or is_mounted(directory):
        return
    mount = mount_of(directory)
    if mount.point == str(directory.resolve()) and not mount.shared:
        syscalls.unmount(directory)


class MountPoint(NamedTuple):
    """Where a mount is, and whether mounts below it propagate: to others, from others (mount_namespaces(7))."""

    point: str
    shared: bool
    slave: bool


def mount_of(path: Path) -> MountPoint:
    """The mount that holds a path (proc_pid_mountinfo(5)): the last, longest."""
    found = MountPoint("", shared=False, slave=False)
    real = str(path.resolve())
    for line in Path("/proc/thread-self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        point = fields[4].encode().decode("unicode_escape")
        below = real == point or real.startswith(point.rstrip("/") + "/")
        if below and len(point) >= len(found.point):
            tags = {field.partition(":")[0] for field in fields[6 : fields.index("-")]}
            found = MountPoint(point, "shared" in tags, "master" in tags)
    return found


def is_mounted(path: Path) -> bool:
    """Whether another filesystem is mounted on path: a namespace, a tmpfs, queues; no bind of the same."""
    try:
        return os.lstat(path).st_dev != os.lstat(path.parent).st_dev
    except FileNotFoundError:
        return False


def enter(directory: Path, kinds: list[str]) -> None:
    """Move the calling thread into the pinned namespaces; make and pin them first where one is not."""
    pins = [directory / kind for kind in kinds]
    if pins and all(map(is_mounted, pins)):
        for kind, pin in zip(kinds, pins, strict=True):
            _join(pin, NAMESPACES[kind])
        return
    for pin in pins:
        if pin.exists():
            syscalls.unmount(pin)
    syscalls.unshare(sum(NAMESPACES[kind] for kind in kinds))
    for kind, pin in zip(kinds, pins, strict=True):
        pin.touch(mode=0o600)
        syscalls.mount(f"/proc/thread-self/ns/{kind}", pin, None, syscalls.MS_BIND)


def _join(pin: Path, kind: int) -> None:
    fd = os.open(pin, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(fd, kind)
    finally:
        os.close(fd)


def mount_shm(directory: Path) -> None:
    """Mount the pod's shared memory."""
    target = directory / "shm"
    target.mkdir(mode=0o755, exist_ok=True)
    if not is_mounted(target):
        syscalls.mount("shm", target, "tmpfs", _QUIET, f"mode=1777,size={_SHM_SIZE}")


def remove(directory: Path) -> None:
    """Remove the pins, the mounts and the directory, in whatever state they are."""
    for name in (*NAMESPACES, "pid", "shm", "mqueue"):  # the last one: of an earlier agent
        syscalls.unmount(directory / name)
    if not directory.exists():
        return
    for entry in directory.iterdir():
        if entry.is_dir():
            entry.rmdir()  # ours hold nothing once unmounted: anything else is worth an error
        else:
            entry.unlink()
    directory.rmdir()
