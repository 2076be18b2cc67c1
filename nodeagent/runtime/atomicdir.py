"""A directory of files whose contents change all at once: readers see the old set or the new one, never a mix.

The files are in a hidden directory `..<time>.<random>`; `..data` is a symlink to it, replaced by rename; each visible
name is a symlink through `..data`. This is the layout of the kubelet's atomic writer, on which programs rely (they
watch `..data`). A crash leaves at most a hidden directory that nothing points to: the next write removes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from nodeagent.runtime.payload import File

_DATA, _NEW = "..data", "..data_tmp"


def write(target: Path, files: Mapping[str, File], group: int | None = None) -> bool:
    """Make the directory hold exactly these files; False where it did already.

    group: the pod's fsGroup, which owns files and directories: files get r for it, directories rx and setgid (0440 and
    02550 added, the kubelet's masks for volumes that containers cannot write to).
    """
    current = _current(target)
    if current is not None and _holds(current, files, group):
        _link(target, files)
        return False
    stamp = datetime.now(UTC).strftime("..%Y_%m_%d_%H_%M_%S.")
    fresh = Path(tempfile.mkdtemp(prefix=stamp, dir=target))
    _fill(fresh, files, group)
    with contextlib.suppress(FileNotFoundError):
        (target / _NEW).unlink()
    (target / _NEW).symlink_to(fresh.name)
    (target / _NEW).rename(target / _DATA)
    _link(target, files)
    _sweep(target, fresh.name)
    return True


def _current(target: Path) -> Path | None:
    try:
        return target / os.readlink(target / _DATA)
    except FileNotFoundError:
        return None


def _effective(file: File, group: int | None) -> int:
    return file.mode | 0o440 if group is not None else file.mode


def _holds(current: Path, files: Mapping[str, File], group: int | None) -> bool:
    found = {str(path.relative_to(current)): path for path in current.rglob("*") if path.is_file()}
    if found.keys() != files.keys():
        return False
    return all(
        path.stat().st_mode & 0o7777 == _effective(files[name], group) and path.read_bytes() == files[name].data
        for name, path in found.items()
    )


def _fill(fresh: Path, files: Mapping[str, File], group: int | None) -> None:
    _directory(fresh, group)
    for name, file in files.items():
        path = fresh / name
        for parent in reversed(path.relative_to(fresh).parents[:-1]):
            if not (fresh / parent).is_dir():
                (fresh / parent).mkdir()
                _directory(fresh / parent, group)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as opened:
            opened.write(file.data)
            if group is not None:
                os.fchown(fd, -1, group)
            # Explicitly: the umask must not take bits away.
            os.fchmod(fd, _effective(file, group))


def _directory(path: Path, group: int | None) -> None:
    if group is not None:
        os.chown(path, -1, group)
    path.chmod(0o755 if group is None else 0o2755)


def _link(target: Path, files: Mapping[str, File]) -> None:
    wanted = {name.split("/")[0] for name in files}
    for name in wanted:
        _show(target / name)
    for path in target.iterdir():
        # Directories were made for sub-paths whose file was not there: they are somebody's mount.
        if path.is_symlink() and path.name not in (_DATA, _NEW) and path.name not in wanted:
            path.unlink()


def _show(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()  # made for a sub-path before the file came
    if not os.path.lexists(path):
        path.symlink_to(f"{_DATA}/{path.name}")


def _sweep(target: Path, kept: str) -> None:
    for path in target.iterdir():
        if path.name.startswith("..") and path.name not in (_DATA, kept):
            shutil.rmtree(path)
