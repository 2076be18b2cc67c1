"""Sub-paths of volumes: the file or directory below a volume that a container gets instead of the whole.

Owns run/subpaths/<uid>/<container>/<index>, each a bind mount of what the sub-path led to when it was looked at, once,
by a walk that cannot leave the volume. The runtime mounts that pin: a symlink swapped in later, or a rename, changes
nothing. Makes the directories that are missing and never removes them. Fails with ValueError (a path that is none) and
OSError (EXDEV, ELOOP: it leads out of the volume).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from nodeagent import syscalls
from nodeagent.runtime.beneath import directory, open_beneath, open_child

_DIRECTORY = os.O_PATH | os.O_DIRECTORY


class SubPaths:
    """The pins of one node. Its methods block for a short time: call them in a thread."""

    def __init__(self, run: Path) -> None:
        self._base = run / "subpaths"

    def pin(self, uid: str, container: str, index: int, volume: Path, path: str) -> Path:
        """Pin what `path` leads to below a volume; a missing one becomes a directory. A pin of before is replaced."""
        parts = parts_of(path)
        target = self._base / uid / container / str(index)
        with directory(volume) as root:
            fd = open_or_make(root, parts)
            try:
                _clear(target)
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _bind(fd, target)
            finally:
                os.close(fd)
        return target

    def remove(self, uid: str) -> None:
        """Remove the pins of a pod. What they pinned stays: nothing is deleted recursively. Idempotent."""
        base = self._base / uid
        for container in _entries(base):
            for target in _entries(container):
                _clear(target)
            container.rmdir()
        with contextlib.suppress(FileNotFoundError):
            base.rmdir()


def parts_of(path: str) -> Sequence[str]:
    """The names of a sub-path. ValueError where it is absolute or goes up."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/"):
        raise ValueError(f"subPath {path!r} must not be an absolute path")
    if ".." in parts:
        raise ValueError(f"subPath {path!r} must not contain '..'")
    if "\0" in path:
        raise ValueError(f"subPath {path!r} must not contain NUL")
    return parts


def open_or_make(root: int, parts: Sequence[str]) -> int:
    """An O_PATH descriptor of a path below a directory descriptor; directories that are missing are made on the way.

    What exists is resolved by the kernel as a whole, symlinks that stay below the root included. What is made is then
    walked name by name from descriptor to descriptor, through no symlink at all. New directories get the root's mode
    and setgid bit, as the kubelet gives them, so that who may write to the volume may write to them.
    """
    fd, found = _deepest(root, parts)
    mode = os.fstat(root).st_mode & (0o777 | stat.S_ISGID)
    for name in parts[found:]:
        try:
            child = _make(fd, name, mode)
        finally:
            os.close(fd)
        fd = child
    return fd


def _deepest(root: int, parts: Sequence[str]) -> tuple[int, int]:
    """What exists of a path: its descriptor, and how many of the names that is."""
    for count in range(len(parts), 0, -1):
        try:
            return open_beneath(root, "/".join(parts[:count]), os.O_PATH), count
        except FileNotFoundError:
            continue
    return open_beneath(root, ".", _DIRECTORY), 0


def _make(parent: int, name: str, mode: int) -> int:
    try:
        os.mkdir(name, mode & 0o777, dir_fd=parent)
    except FileExistsError:  # another container was faster, or it is a symlink: that is refused here
        return open_child(parent, name, _DIRECTORY)
    child = open_child(parent, name, _DIRECTORY)
    # Explicitly: the umask must not take bits away. By the descriptor: the name may mean something else by now.
    os.chmod(f"/proc/self/fd/{child}", mode)
    return child


def _bind(fd: int, target: Path) -> None:
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        target.mkdir(mode=0o700)
    else:
        target.touch(mode=0o600)
    syscalls.mount(f"/proc/self/fd/{fd}", target, None, syscalls.MS_BIND)


def _entries(path: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):
        yield from sorted(path.iterdir())


def _clear(target: Path) -> None:
    syscalls.unmount(target)
    with contextlib.suppress(FileNotFoundError):
        try:
            target.unlink()
        except IsADirectoryError:
            target.rmdir()
