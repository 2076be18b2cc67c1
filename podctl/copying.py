"""Files between this machine and a tar stream: what `cp` sends, and what it lets a container write here.

A container's archive is hostile. Every name is resolved from the target's own descriptor, one component at a time and
through no symlink; only directories and regular files are made, without setuid, setgid or sticky bits, each under
another name until it is whole. Symlinks are left out, as kubectl does; so are devices and fifos.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from podctl.failure import Failure
from podctl.untar import Damaged, Member, members

_CHUNK = 128 << 10
_NO_FOLLOW = os.O_NOFOLLOW | os.O_CLOEXEC
Say = Callable[[str], None]


def shown(name: str) -> str:
    """A name as it may be printed on a terminal."""
    return "".join(one if one.isprintable() else "?" for one in name)


# ── out ──────────────────────────────────────────────────────────────────────────────────────────────────────


def pack(source: Path, name: str, warn: Say) -> Iterator[bytes]:
    """The tar stream of a file or directory, which is called `name` there. Raises OSError."""
    found = source.lstat()
    if stat.S_ISREG(found.st_mode):
        yield from _packed_file(source, name, warn)
    elif stat.S_ISLNK(found.st_mode):
        yield _header(name, found, tarfile.SYMTYPE, target=os.readlink(source))
    elif stat.S_ISDIR(found.st_mode):
        yield _header(name, found, tarfile.DIRTYPE)
        for child in sorted(os.listdir(source)):
            yield from pack(source / child, f"{name}/{child}", warn)
    else:
        warn(f"warning: skipping {shown(str(source))}: it is neither a file, nor a directory, nor a symlink")


def end_of_archive() -> bytes:
    """What every archive ends with."""
    return bytes(2 * tarfile.BLOCKSIZE)


def _header(name: str, found: os.stat_result, kind: bytes, size: int = 0, target: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, target
    info.mode, info.mtime = stat.S_IMODE(found.st_mode), int(found.st_mtime)
    info.uid, info.gid = found.st_uid, found.st_gid
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _packed_file(source: Path, name: str, warn: Say) -> Iterator[bytes]:
    with source.open("rb") as file:
        found = os.fstat(file.fileno())
        yield _header(name, found, tarfile.REGTYPE, size=found.st_size)
        left = found.st_size
        while left:
            data = file.read(min(_CHUNK, left))
            if not data:  # it has become shorter: the header's promise is kept
                warn(f"warning: {shown(str(source))} changed while it was read")
                data = bytes(min(_CHUNK, left))
            left -= len(data)
            yield data
        yield bytes(-found.st_size % tarfile.BLOCKSIZE)


# ── in ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Target:
    """Where the members of one archive go: `base` of the archive becomes `path`. `warn` says what was left out."""

    def __init__(self, path: Path, base: str, warn: Say) -> None:
        self._path, self._base, self._warn = path, base, warn
        self.count = 0

    def unpack(self, read: Callable[[int], bytes]) -> None:
        """Everything of the stream. Failure where it is damaged or hostile, or the disk refuses."""
        try:
            for member in members(read):
                self._take(member)
        except Damaged as error:
            raise Failure(f"error: tar contents corrupted: {error}") from None
        except OSError as error:
            raise Failure(f"error: cannot write {shown(str(error.filename or self._path))}: {error.strerror}") from None

    def _take(self, member: Member) -> None:
        parts = self._parts(member.name)
        self.count += 1
        if member.kind == "directory":
            with self._directory(parts):
                return
        if member.kind == "file":
            self._write(parts, member.mode, member.chunks)
        elif member.kind == "link":
            self._write(parts, member.mode, self._copied(self._parts(member.target)))
        elif member.kind == "symlink":
            self._warn(f'warning: skipping symlink: "{shown(member.name)}" -> "{shown(member.target)}"')
        else:
            self._warn(f'warning: skipping {member.kind}: "{shown(member.name)}"')

    def _parts(self, name: str) -> list[str]:
        """The way from the target to a member; Failure where it leads elsewhere."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        base = [] if self._base == "." else [self._base]
        if name.startswith("/") or ".." in parts or parts[: len(base)] != base:
            raise Failure(f'error: tar contents corrupted: "{shown(name)}" is not beneath "{shown(self._base)}"')
        return parts[len(base) :]

    @contextlib.contextmanager
    def _directory(self, parts: list[str]) -> Iterator[int]:
        """A descriptor of a directory beneath the target, which is made where it is not there yet."""
        if not self._path.is_dir():
            self._path.mkdir(parents=True)
        fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=fd)
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | _NO_FOLLOW, dir_fd=fd)
                os.close(fd)
                fd = inner
            yield fd
        finally:
            os.close(fd)

    def _write(self, parts: list[str], mode: int, chunks: Iterator[bytes]) -> None:
        if parts:
            with self._directory(parts[:-1]) as fd:
                _replace(fd, parts[-1], mode, chunks)
        elif self._path.is_symlink() or (self._path.exists() and not self._path.is_file()):
            # /dev/stdout, a fifo, a symlink: the target itself is the caller's word, and what it leads to is meant.
            with self._path.open("wb", buffering=0) as given:
                for data in chunks:
                    given.write(data)
        else:
            with _parent(self._path) as fd:
                _replace(fd, self._path.name, mode, chunks)

    def _copied(self, parts: list[str]) -> Iterator[bytes]:
        """The bytes of what an earlier member has made."""
        with self._directory(parts[:-1]) as fd:
            opened = os.open(parts[-1] if parts else ".", os.O_RDONLY | os.O_NONBLOCK | _NO_FOLLOW, dir_fd=fd)
            with os.fdopen(opened, "rb") as file:
                if not stat.S_ISREG(os.fstat(opened).st_mode):
                    raise Damaged("a link to something that is no file")
                while data := file.read(_CHUNK):
                    yield data


@contextlib.contextmanager
def _parent(path: Path) -> Iterator[int]:
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _replace(directory: int, name: str, mode: int, chunks: Iterator[bytes]) -> None:
    """Write a file under a name of its own, then give it its place; never through what stands there."""
    temporary = f".podctl-{secrets.token_hex(6)}"
    # open() takes the umask into account, which is this machine's say in the mode.
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, mode & 0o777 | 0o200, dir_fd=directory)
    try:
        with os.fdopen(fd, "wb", buffering=0) as file:
            for data in chunks:
                file.write(data)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise
