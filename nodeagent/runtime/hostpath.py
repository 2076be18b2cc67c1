"""hostPath volumes: which paths of the node a pod may have, and the checks of their types.

Fails with ValueError in the kubelet's words. A path is judged after its symlinks are resolved, and the resolved path is
what is mounted. Creates only what the types "" and ...OrCreate say, and never removes anything.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nodeagent.runtime.rootfs import below

_CHECKS: dict[str, tuple[Callable[[int], bool], str]] = {
    "Directory": (stat.S_ISDIR, "directory"),
    "DirectoryOrCreate": (stat.S_ISDIR, "directory"),
    "File": (stat.S_ISREG, "file"),
    "FileOrCreate": (stat.S_ISREG, "file"),
    "Socket": (stat.S_ISSOCK, "socket file"),
    "CharDevice": (stat.S_ISCHR, "character device"),
    "BlockDevice": (stat.S_ISBLK, "block device"),
}


@dataclass(frozen=True, slots=True)
class HostPaths:
    """allowed: prefixes that pods may use (empty: any). refused: the daemons' own directories, always."""

    allowed: Sequence[Path] = ()
    refused: Sequence[Path] = ()

    def prepare(self, path: str, kind: str) -> Path:
        """Check and, where the type says so, create. Returns the resolved path."""
        if not path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"hostPath {path!r} must be absolute, without '..'")
        if kind and kind not in _CHECKS:
            raise ValueError(f"hostPath type {kind!r} is not known")
        self._permit(os.path.normpath(path))
        resolved = os.path.realpath(path)
        self._permit(resolved)
        _create(resolved, kind)
        _check(path, resolved, kind)
        return Path(resolved)

    def _permit(self, path: str) -> None:
        refused = [os.path.realpath(item) for item in self.refused] + [str(item) for item in self.refused]
        # Also what contains them: a pod that has /var has the keys below it.
        if below(path, refused) or any(below(item, [path]) for item in refused):
            raise ValueError(f"hostPath {path} is not allowed: it holds or is a directory of the node's daemons")
        if self.allowed and not below(path, [str(item) for item in self.allowed]):
            raise ValueError(f"hostPath {path} is not allowed on this node")


def _create(path: str, kind: str) -> None:
    if os.path.lexists(path):
        return
    if kind in ("", "DirectoryOrCreate"):
        os.makedirs(path, mode=0o755)
    elif kind == "FileOrCreate":
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def _check(asked: str, path: str, kind: str) -> None:
    if not kind:
        return
    matches, word = _CHECKS[kind]
    try:
        good = matches(os.stat(path).st_mode)
    except FileNotFoundError:
        good = False
    if not good:
        raise ValueError(f"hostPath type check failed: {asked} is not a {word}")
