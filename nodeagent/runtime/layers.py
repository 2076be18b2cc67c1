"""Unpacking one image layer, as a program: `python -m nodeagent.runtime.layers BLOB DIGEST DIFF_ID TARGET`.

A process of its own, since hashing and inflating would stall the agent's loop, and so that a deadline can kill it.
Nothing is written to TARGET before digest and diff id are right and every entry has been looked at; then GNU tar
unpacks and whiteouts become overlay's own. Refuses (exit 1, the reason on stderr): wrong digests, paths that leave
the layer or lead through a symlink, too many entries, too many bytes. Works beside TARGET and never elsewhere.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import stat
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

MAX_BYTES = 32 << 30
MAX_ENTRIES = 2_000_000
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
    entries: int = 0


def inflated(blob: Path, digest: str) -> Iterator[bytes]:
    """The uncompressed bytes of a blob; Refused at the end if its digest is wrong."""
    hashed = hashlib.sha256()
    with blob.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic == _ZSTD:
            raise Refused("layers compressed with zstd are not supported")
        inflater = zlib.decompressobj(31) if magic[:2] == _GZIP else None
        while chunk := file.read(_CHUNK):
            hashed.update(chunk)
            if inflater is None:
                yield chunk
                continue
            while chunk:
                yield inflater.decompress(chunk, _CHUNK)
                chunk = inflater.unconsumed_tail
                if inflater.eof:
                    # gzip files may have several members; each starts anew.
                    chunk, inflater = inflater.unused_data, zlib.decompressobj(31)
    if f"sha256:{hashed.hexdigest()}" != digest:
        raise Refused(f"layer digest is sha256:{hashed.hexdigest()}, expected {digest}")


def inflate(blob: Path, digest: str, diff_id: str, tar: Path, limit: int = MAX_BYTES) -> None:
    """Write the uncompressed layer, with both digests checked."""
    hashed, size = hashlib.sha256(), 0
    with tar.open("wb") as file:
        for chunk in inflated(blob, digest):
            size += len(chunk)
            if size > limit:
                raise Refused(f"layer is larger than {limit} bytes")
            hashed.update(chunk)
            file.write(chunk)
    if f"sha256:{hashed.hexdigest()}" != diff_id:
        raise Refused(f"layer diff id is sha256:{hashed.hexdigest()}, expected {diff_id}")


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
    if entry.islnk() and _clean(entry.linkname) == "":
        raise Refused(f"hard link {entry.name!r} leads nowhere")
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


def _extract(tar: Path, target: Path) -> None:
    argv = [
        "tar", "--extract", "--file", str(tar), "--directory", str(target), "--numeric-owner", "--same-owner",
        "--same-permissions", "--delay-directory-restore", "--xattrs", "--xattrs-include=security.capability",
        "--xattrs-include=user.*", "--exclude=.wh.*", "--warning=no-timestamp",
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


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), f"syncfs {path}")
    finally:
        os.close(fd)


def unpack(blob: Path, digest: str, diff_id: str, target: Path) -> None:
    """Unpack a layer to `target`, which must not exist: it appears whole and synced, or not at all."""
    tar, draft = target.with_suffix(".tar"), target.with_suffix(".draft")
    try:
        inflate(blob, digest, diff_id, tar)
        plan = look(tar)
        draft.mkdir(mode=0o755)
        _extract(tar, draft)
        _whiteouts(plan, draft)
        draft.chmod(0o755)
        _sync(draft)
        draft.rename(target)
        _sync(target.parent)
    finally:
        tar.unlink(missing_ok=True)


def main(argv: list[str]) -> int:
    """Unpack; 0, or 1 with the reason on stderr."""
    os.umask(0o022)
    blob, digest, diff_id, target = argv
    try:
        unpack(Path(blob), digest, diff_id, Path(target))
    except (Refused, OSError, zlib.error, tarfile.TarError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
