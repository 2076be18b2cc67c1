"""Root filesystems: an overlay of an image's layers, or a private copy-on-write overlay of the node's own root.

Owns state/containers/<id>/*-{upper,work} (or the same below run, where the state directory cannot be an overlay's upper
layer) and the mount at run/containers/<id>/rootfs. The node's own root shows neither secrets nor keys nor the daemons'
directories: each is covered by an empty read-only mount, which the OCI runtime makes inside the container's mount
namespace. Never touches the lower layers. Fails with OSError.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nodeagent import smallfiles, syscalls
from nodeagent.runtime.image import HOST, Image
from nodeagent.runtime.spec import Root, bind
from nodeagent.sandbox.namespaces import is_mounted

HIDDEN = ("/var/lib/podplane", "/etc/podplane", "/run/podplane", "/root", "/home")
HIDDEN_FILES = ("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-")
HIDDEN_PATTERNS = ("/etc/shadow*", "/etc/gshadow*", "/etc/ssh/*_key")
FRESH = ("/tmp", "/run")
_OWN = (*FRESH, "/proc", "/sys", "/dev")
_SYSTEM = ("/usr", "/var", "/opt", "/etc", "/srv", "/bin", "/sbin", "/lib", "/lib64")
_NOT_SYSTEM = {"proc", "sysfs", "devtmpfs", "tmpfs", "ramfs", "cgroup", "cgroup2", "devpts", "mqueue", "autofs",
               "bpf", "tracefs", "debugfs", "securityfs", "configfs", "fusectl", "nsfs", "binfmt_misc"}  # fmt: skip


_MOUNTS_KNOWN = 2.0
"""Seconds for which the table of mounts is taken to hold."""


def _changed_at(directory: str) -> int:
    try:
        return os.stat(directory).st_mtime_ns
    except OSError:
        return -1


def below(path: str, roots: Iterable[str]) -> bool:
    """Whether a path is one of the roots or below one."""
    return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)


def system_mounts(mountinfo: str, hidden: Sequence[str]) -> list[str]:
    """The mount points below / that hold the system and are not hidden, parents first. Pure."""
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        raw, kind = left.split(" ")[4], right.split(" ", 1)[0]
        # A busy node has hundreds of mounts, and this is on the way of every start: judge cheaply first.
        if not raw.startswith(_SYSTEM):
            continue
        point = raw.encode().decode("unicode_escape")
        # Overlays below /var are the roots of other engines' containers: no part of the system, and gone any moment.
        other = kind in _NOT_SYSTEM or (kind == "overlay" and below(point, ("/var",)) and point != "/var")
        if below(point, _SYSTEM) and not other and not below(point, hidden):
            found.append(point)
    return sorted(set(found))


def outermost(paths: Iterable[str]) -> list[str]:
    """Without those below another: nothing can be mounted inside an empty read-only mount. Pure."""
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not below(path, kept):
            kept.append(path)
    return kept


class Rootfs:
    """Makes and removes root filesystems. All methods block for a short time: call them in a thread."""

    def __init__(self, state: Path, run: Path, layers: Path, hidden: Sequence[Path] = ()) -> None:
        self._run = run / "containers"
        self._layers = layers
        self._empty = run / "empty"
        self._options = ["volatile"]
        own = [str(path) for path in (state, run, *hidden)]
        self._hidden = outermost([*HIDDEN, *own, *(os.path.realpath(path) for path in (*HIDDEN, *own))])
        self._parents = sorted({os.path.dirname(path) for path in (*self._hidden, *HIDDEN_PATTERNS)})
        self._seen: tuple[int, ...] = ()
        self._covering: list[dict[str, Any]] = []
        self._looked = float("-inf")
        self._systems: Sequence[str] = ()
        self._scratch = state / "containers"
        self._spare_scratch = run / "scratch"

    def open(self) -> None:
        """Make the directories, and find out where an overlay's upper layer may be."""
        for path in (self._run, self._scratch, self._spare_scratch):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._empty / "directory").mkdir(mode=0o555, parents=True, exist_ok=True)
        (self._empty / "file").touch(mode=0o000)
        try:
            self.mount(Image(HOST, HOST), ".probe")
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # The state directory is itself on an overlay (a live system): its files can be in memory only.
            self._scratch = self._spare_scratch
            self.mount(Image(HOST, HOST), ".probe")
        finally:
            self.unmount(".probe")

    def point(self, container: str) -> Path:
        """Where a container's root filesystem is mounted."""
        return self._run / container / "rootfs"

    def scratch(self, container: str) -> Path:
        """The container's own directory on the node's disk."""
        return self._scratch / container

    def mount(self, image: Image, container: str) -> Root:
        """Mount a root filesystem; done again, finds it done."""
        point = self.point(container)
        smallfiles.directories(point.parent, point, mode=0o755)
        if image.id == HOST:
            return self._host(point, container)
        lower = [self._layers / layer.partition(":")[2] for layer in reversed(image.layers)]
        self._overlay(lower or [self._empty / "directory"], self._writable(container, "root"), point)
        return Root(point)

    def unmount(self, container: str) -> None:
        """Unmount and delete; harmless where there is nothing."""
        with contextlib.suppress(OSError):
            while True:
                syscalls.umount2(self.point(container), syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
        with contextlib.suppress(FileNotFoundError):
            self.point(container).rmdir()
        if container == ".probe":
            shutil.rmtree(self._run / container, ignore_errors=True)
        for base in (self._scratch, self._spare_scratch):
            remove_tree(base / container)

    def sweep(self, known: Iterable[str]) -> None:
        """Delete what containers of an earlier boot have left on the disk."""
        kept = set(known)
        for base in (self._scratch, self._spare_scratch):
            for path in base.iterdir():
                if path.name not in kept:
                    remove_tree(path)

    def _host(self, point: Path, container: str) -> Root:
        self._overlay([Path("/")], self._writable(container, "root"), point)
        mounts = [self._system(path, container) for path in self._system_paths()]
        return Root(point, (*mounts, *self._covers()), FRESH)

    def _system_paths(self) -> Sequence[str]:
        # The kernel takes 10 us a mount to print the table, and every pod adds some.
        if time.monotonic() - self._looked > _MOUNTS_KNOWN:
            self._looked = time.monotonic()
            self._systems = system_mounts(Path("/proc/self/mountinfo").read_text(), [*self._hidden, *_OWN])
        return self._systems

    def _system(self, path: str, container: str) -> dict[str, Any]:
        if not os.path.isdir(path):  # a file with a mount of its own has no overlay: nobody writes to it
            return bind(path, path, "bind", "ro", "nodev")
        upper, work = self._writable(container, path.strip("/").replace("/", "-"))
        options = [f"lowerdir={path}", f"upperdir={upper}", f"workdir={work}", *self._options, "nodev"]
        return {"destination": path, "type": "overlay", "source": "overlay", "options": options}

    def _covers(self) -> list[dict[str, Any]]:
        """What covers the secrets; found again whenever a directory changed in which one may have come."""
        seen = tuple(_changed_at(path) for path in self._parents)
        if seen != self._seen:
            self._seen, self._covering = seen, self._find_covers()
        return self._covering

    def _find_covers(self) -> list[dict[str, Any]]:
        present = [path for path in self._hidden if os.path.isdir(path) and not below(path, _OWN)]
        covers = [
            bind(self._empty / "directory", path, "bind", "ro", "nosuid", "nodev", "noexec")
            for path in present
            if not os.path.islink(path)
        ]
        files = {*HIDDEN_FILES, *(path for pattern in HIDDEN_PATTERNS for path in glob.glob(pattern))}
        return covers + [
            bind(self._empty / "file", path, "bind", "ro", "nosuid", "nodev", "noexec")
            for path in sorted(files)
            if not os.path.islink(path) and not below(path, present)
        ]

    def _writable(self, container: str, name: str) -> tuple[Path, Path]:
        base = self.scratch(container)
        upper, work = base / f"{name}-upper", base / f"{name}-work"
        smallfiles.directories(base, upper, work)
        os.chmod(upper, 0o755)
        return upper, work

    def _overlay(self, lower: Sequence[Path], writable: tuple[Path, Path], point: Path) -> None:
        if is_mounted(point):
            return
        with contextlib.ExitStack() as stack:
            # The options are limited to a page; a descriptor's name is short, whatever the layers' paths are.
            fds = [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in lower]
            for fd in fds:
                stack.callback(os.close, fd)
            names = ":".join(f"/proc/self/fd/{fd}" for fd in fds)
            options = f"lowerdir={names},upperdir={writable[0]},workdir={writable[1]}"
            self._mount_overlay(point, options)

    def _mount_overlay(self, point: Path, options: str) -> None:
        try:
            syscalls.mount("overlay", point, "overlay", syscalls.MS_NODEV, ",".join([options, *self._options]))
        except OSError as error:
            if error.errno != errno.EINVAL or not self._options:
                raise
            # Kernels before 5.10 do not know `volatile`.
            syscalls.mount("overlay", point, "overlay", syscalls.MS_NODEV, options)
            self._options = []


def remove_tree(path: Path) -> None:
    """Delete a tree that a container may have filled; a link is deleted, never followed."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        else:
            shutil.rmtree(path)
