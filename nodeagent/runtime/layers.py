"""Unpacking one image layer, as a program: `python -m nodeagent.runtime.layers BLOB DIGEST DIFF_ID TARGET LIMIT`.

A process of its own, since hashing and inflating would stall the agent's loop, and so that a deadline can kill it.
Nothing is written to TARGET before digest and diff id are right and every entry has been looked at; then GNU tar
unpacks and whiteouts become overlay's own. Prints the layer's bytes. Refuses (exit 1, the reason on stderr): wrong
digests, paths that leave the layer or lead through a symlink, hard links to anything but the layer's own, device
nodes, too many entries, more than LIMIT bytes or than the disk has room for. Works beside TARGET and never elsewhere.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from nodeagent.runtime.command import DIES_WITH_US, SEARCH_PATH
from nodeagent.runtime.image import MAX_LAYER

MAX_ENTRIES = 2_000_000
KEPT_FREE = 20
"""One part in so many of the disk is not for layers."""
OPAQUE = ".wh..wh..opq"
WHITEOUT = ".wh."
_CHUNK = 1 << 20
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Refused(Exception):
    """The layer is not what it should be."""


@dataclass(slots=True)
class Plan:
    """What a look at every entry has found."""

    opaque: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)
    """Device nodes below /dev, which a container never sees: it has its own /dev."""
    entries: int = 0


def check(blob: Path, digest: str) -> None:
    """Refused unless the blob has that digest."""
    with blob.open("rb") as file:
        found = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    if found != digest:
        raise Refused(f"layer digest is {found}, expected {digest}")


def inflated(blob: Path) -> Iterator[bytes]:
    """The uncompressed bytes of a blob, never much more than a chunk at a time."""
    with blob.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic == _ZSTD:
            yield from _unzstd(blob)
        elif magic[:2] == _GZIP:
            yield from _gunzip(file)
        else:
            while chunk := file.read(_CHUNK):
                yield chunk


def _gunzip(file: BinaryIO) -> Iterator[bytes]:
    inflater = zlib.decompressobj(31)
    while chunk := file.read(_CHUNK):
        while chunk:
            yield inflater.decompress(chunk, _CHUNK)
            chunk = inflater.unconsumed_tail
            if inflater.eof:
                # gzip files may have several members; each starts anew.
                chunk, inflater = inflater.unused_data, zlib.decompressobj(31)


def _unzstd(blob: Path) -> Iterator[bytes]:
    program = shutil.which("zstd", path=SEARCH_PATH)
    if program is None:
        raise Refused("the layer is compressed with zstd: install the package zstd on this node")
    argv = [*DIES_WITH_US, program, "--decompress", "--stdout", "--quiet", "--memory=256MB", str(blob)]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            while chunk := process.stdout.read(_CHUNK):
                yield chunk
        finally:
            process.kill()  # where we end first; a zombie does not mind
    # 0, or killed after its last byte: the diff id is what vouches for them.
    if process.returncode not in (0, -signal.SIGKILL):
        raise Refused(f"zstd ended with status {process.returncode}")


def inflate(blob: Path, diff_id: str, tar: Path, limit: int = MAX_LAYER) -> int:
    """Write the uncompressed layer, with its diff id checked; its size."""
    hashed, size = hashlib.sha256(), 0
    room = _room(tar.parent)
    with tar.open("wb") as file:
        for chunk in inflated(blob):
            size += len(chunk)
            if size > limit:
                raise Refused(f"layer is larger than {limit} bytes")
            if size > room:
                raise Refused(f"no space left on device: the layer is larger than {room} bytes")
            hashed.update(chunk)
            file.write(chunk)
    if f"sha256:{hashed.hexdigest()}" != diff_id:
        raise Refused(f"layer diff id is sha256:{hashed.hexdigest()}, expected {diff_id}")
    return size


def _room(directory: Path) -> int:
    """Bytes that a layer may have: it is here twice for a while, as archive and unpacked, and some must stay free."""
    disk = os.statvfs(directory)
    return max(0, disk.f_bavail * disk.f_frsize - disk.f_blocks * disk.f_frsize // KEPT_FREE) // 2


def _clean(name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Refused(f"entry {name!r} leaves the layer")
    return "/".join(parts)


def _parents(name: str) -> Iterator[str]:
    at = name.find("/")
    while at >= 0:
        yield name[:at]
        at = name.find("/", at + 1)


def look(tar: Path, limit: int = MAX_ENTRIES) -> Plan:
    """Look at every entry before one is written."""
    plan, links = Plan(), set[str]()
    with tarfile.open(tar, "r:") as archive:
        for entry in archive:
            archive.members = []  # type: ignore[attr-defined]  # or it keeps every entry in memory
            plan.entries += 1
            if plan.entries > limit:
                raise Refused(f"layer has more than {limit} entries")
            _look_at(entry, plan, links)
    return plan


def _look_at(entry: tarfile.TarInfo, plan: Plan, links: set[str]) -> None:
    name = _clean(entry.name)
    for parent in _parents(name):
        if parent in links:
            raise Refused(f"entry {entry.name!r} leads through the symlink {parent!r}")
    if entry.islnk():
        _look_at_hard_link(entry, links)
    if entry.ischr() or entry.isblk():
        if not name.startswith("dev/"):
            raise Refused(f"device node {entry.name!r}")
        plan.devices.append(name)
    directory, _, base = name.rpartition("/")
    if base == OPAQUE:
        plan.opaque.append(directory)
    elif base.startswith(WHITEOUT):
        hidden = base.removeprefix(WHITEOUT)
        if not base.startswith(".wh..wh.") and hidden not in ("", ".", ".."):
            plan.removed.append(f"{directory}/{hidden}".lstrip("/"))
    elif entry.issym():
        links.add(name)
    else:
        links.discard(name)


def _look_at_hard_link(entry: tarfile.TarInfo, links: set[str]) -> None:
    target = _clean(entry.linkname)
    if not target:
        raise Refused(f"hard link {entry.name!r} leads nowhere")
    for parent in _parents(target):
        if parent in links:
            raise Refused(f"hard link {entry.name!r} leads through the symlink {parent!r}")


def _extract(tar: Path, target: Path) -> None:
    argv = [
        *DIES_WITH_US, "tar", "--extract", "--file", str(tar), "--directory", str(target), "--numeric-owner",
        "--same-owner", "--same-permissions", "--delay-directory-restore", "--xattrs",
        "--xattrs-include=security.capability", "--xattrs-include=user.*", "--exclude=.wh.*", "--warning=no-timestamp",
    ]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise Refused(f"tar: {' '.join(done.stderr.split())[:500]}")


def _real_directory(target: Path, name: str) -> Path:
    path = target
    for part in [part for part in name.split("/") if part]:
        path = path / part
        try:
            if not stat.S_ISDIR(path.lstat().st_mode):
                raise Refused(f"whiteout in {name!r}, which is no directory")
        except FileNotFoundError:
            path.mkdir(mode=0o755)
    return path


def _whiteouts(plan: Plan, target: Path) -> None:
    for name in plan.opaque:
        os.setxattr(_real_directory(target, name), "trusted.overlay.opaque", b"y")
    for name in plan.removed:
        directory, _, base = name.rpartition("/")
        path = _real_directory(target, directory) / base
        # A layer that both has and hides a name: the entry is the newer truth.
        if not os.path.lexists(path):
            os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))


def _devices(plan: Plan, target: Path) -> None:
    for name in plan.devices:
        directory, _, base = name.rpartition("/")
        path = _real_directory(target, directory) / base
        if os.path.lexists(path) and not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), f"syncfs {path}")
    finally:
        os.close(fd)


def unpack(blob: Path, digest: str, diff_id: str, target: Path, limit: int = MAX_LAYER) -> int:
    """Unpack a layer to `target`, which must not exist: it appears whole and synced, or not at all. Its bytes."""
    tar, draft = target.with_suffix(".tar"), target.with_suffix(".draft")
    try:
        check(blob, digest)
        size = inflate(blob, diff_id, tar, limit)
        plan = look(tar)
        draft.mkdir(mode=0o755)
        _extract(tar, draft)
        _devices(plan, draft)  # before whiteouts, which are device nodes too
        _whiteouts(plan, draft)
        draft.chmod(0o755)
        _sync(draft)
        draft.rename(target)
        _sync(target.parent)
        return size
    finally:
        tar.unlink(missing_ok=True)


def main(argv: list[str]) -> int:
    """Unpack; 0, or 1 with the reason on stderr."""
    os.umask(0o022)
    blob, digest, diff_id, target, limit = argv
    try:
        print(unpack(Path(blob), digest, diff_id, Path(target), int(limit)))
    except (Refused, OSError, zlib.error, tarfile.TarError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
