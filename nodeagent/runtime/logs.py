"""Container logs on the node: where they are, and reading them as people ask for them.

conmon writes the CRI format: `<RFC 3339 time> stdout|stderr F|P <text>`; P marks a part of a line that goes on in the
next entry of the same stream. Files: state/logs/<namespace>_<pod>_<uid>/<container>/<attempt>.log, rotated ones with a
suffix .1 (the youngest) upwards. Only reads; rotation.py renames. Times are compared as text to the nanosecond.
Fails with FileNotFoundError where a container has no log.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from nodeagent.runtime import inotify
from nodeagent.types import ContainerRequest

_ENTRY = re.compile(rb"(\S+) (stdout|stderr) ([FP])(?::\S*)? ?(.*)", re.DOTALL)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$")
_CHUNK = 1 << 16
_LONGEST = 1 << 20
_OVERHEAD = 64
"""Bytes that an entry has beside its text, and a byte of that: at most."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What is asked for, as Kubernetes' PodLogOptions. since: seconds since the epoch."""

    tail: int | None = None
    since: float | None = None
    timestamps: bool = False
    limit_bytes: int | None = None
    follow: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One line, its parts joined. `text` ends with a newline, unless the container wrote none."""

    time: str
    stream: str
    text: bytes


def pod_directory(state: Path, namespace: str, pod: str, uid: str) -> Path:
    """Where the logs of a pod are. A long pod name is cut: a file name has at most 255 bytes, and the uid is enough."""
    return state / "logs" / f"{namespace}_{pod[:150]}_{uid}"


def path(state: Path, request: ContainerRequest) -> Path:
    """The log file of a container instance."""
    pod = pod_directory(state, request.namespace, request.pod_name, request.pod_uid)
    return pod / request.name / f"{request.attempt}.log"


def files(log: Path) -> list[Path]:
    """A container's log files, the oldest first; those that rotation has moved included."""
    rotated = []
    for item in log.parent.glob(f"{log.name}.*"):
        number = item.name.removeprefix(log.name + ".")
        if number.isdigit():
            rotated.append((int(number), item))
    return [item for _, item in sorted(rotated, reverse=True)] + ([log] if log.exists() else [])


def seconds(time: str) -> float:
    """An RFC 3339 time with up to nine decimals as seconds since the epoch; ValueError."""
    match = _TIME.match(time)
    if match is None:
        raise ValueError(f"{time!r} is not an RFC 3339 time")
    whole = datetime.fromisoformat(match[1] + ("+00:00" if match[3] == "Z" else match[3]))
    return (whole - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1) + float("0." + (match[2] or "0"))


class Joiner:
    """Joins the parts of long lines, each stream for itself. Pure."""

    def __init__(self) -> None:
        self._parts: dict[bytes, list[bytes]] = {}
        self._times: dict[bytes, bytes] = {}

    def feed(self, entry: bytes) -> Line | None:
        """One entry, with its newline; a Line when one is complete. Damaged entries are dropped."""
        match = _ENTRY.match(entry)
        if match is None:
            return None
        time, stream, mark, text = match.groups()
        parts = self._parts.setdefault(stream, [])
        # The newline of a partial entry belongs to the format, not to the container.
        parts.append(text if mark == b"F" else text.removesuffix(b"\n"))
        if mark == b"P" and sum(map(len, parts)) < _LONGEST:
            self._times[stream] = time
            return None
        del self._parts[stream]
        return Line(time.decode(errors="replace"), stream.decode(), b"".join(parts))

    def rest(self) -> list[Line]:
        """What was written last and has no newline yet, or never will."""
        left = ((stream, b"".join(parts)) for stream, parts in self._parts.items())
        return [Line(self._times[stream].decode(errors="replace"), stream.decode(), text) for stream, text in left]


def _entries(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        yield from (line for line in opened if line.endswith(b"\n"))


def lines(paths: Iterable[Path]) -> Iterator[Line]:
    """All complete lines of some files, in order."""
    joiner = Joiner()
    for item in paths:
        for entry in _entries(item):
            if (line := joiner.feed(entry)) is not None:
                yield line


def last_lines(log: Path, count: int, limit: int) -> str:
    """The end of a log: at most `count` lines and `limit` bytes. "" where there is no log."""
    joiner = Joiner()
    read = (joiner.feed(entry) for entry in _end(log, limit).splitlines(keepends=True))
    kept = deque((line for line in read if line is not None), maxlen=count)
    return b"".join(line.text for line in (*kept, *joiner.rest()))[-limit:].decode(errors="replace")


def _end(log: Path, limit: int) -> bytes:
    """As much of a log's end as holds `limit` bytes of text, be they in entries of one byte; over rotated files."""
    wanted, found = limit * _OVERHEAD, b""
    for item in reversed(files(log)):
        with item.open("rb") as opened:
            opened.seek(max(0, os.fstat(opened.fileno()).st_size - (wanted - len(found))))
            found = opened.read() + found
        if len(found) >= wanted:
            break
    return found


def termination_message(log: Path) -> str:
    """What terminationMessagePolicy FallbackToLogsOnError shows: the last 80 lines, at most 2048 bytes."""
    return last_lines(log, 80, 2048)


def _starts(file: Path, size: int) -> Iterator[int]:
    """Offsets of line starts, from the end backwards."""
    with file.open("rb") as opened:
        position, first = size, True
        while position > 0:
            start = max(0, position - _CHUNK)
            opened.seek(start)
            chunk = opened.read(position - start)
            at = len(chunk)
            while (at := chunk.rfind(b"\n", 0, at)) >= 0:
                if not (first and start + at + 1 == size):
                    yield start + at + 1
                first = False
            position = start
        yield 0


def _tail_offset(file: Path, count: int) -> tuple[int, int]:
    """Where the last `count` whole lines of one file begin, and how many of them there are."""
    size = file.stat().st_size
    if count == 0 or size == 0:
        return size, 0
    found, end = 0, size
    with file.open("rb") as opened:
        for start in _starts(file, size):
            opened.seek(start)
            match = _ENTRY.match(opened.read(min(end - start, 120)))
            # A line is counted at the entry that ends it.
            if match is not None and match[3] == b"F":
                found += 1
                if found > count:
                    return end, count
            end = start
    return 0, found


def begin(log: Path, tail: int | None) -> list[tuple[Path, int]]:
    """The files to read and the offset in each, for the last `tail` lines (None: all)."""
    paths = files(log)
    if not paths:
        raise FileNotFoundError(2, "no log", str(log))
    if tail is None:
        return [(item, 0) for item in paths]
    chosen: list[tuple[Path, int]] = []
    for item in reversed(paths):
        offset, found = _tail_offset(item, tail)
        chosen.insert(0, (item, offset))
        tail -= found
        if tail <= 0:
            break
    return chosen


class _Output:
    """Applies since, timestamps and limitBytes to lines. Pure."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._left = options.limit_bytes
        self.full = False

    def render(self, line: Line) -> bytes:
        if self._options.since is not None and seconds(line.time) < self._options.since:
            return b""
        text = line.text
        if self._options.timestamps:
            text = line.time.replace("+00:00", "Z").encode() + b" " + text
        if self._left is not None:
            text = text[: self._left]
            self._left -= len(text)
            self.full = self._left <= 0
        return text


class _Cursor:
    """Reads on where it stopped, across rotation. Blocks only for reads of local files.

    Not `on`: only up to where the log ends now. Who writes faster than it is read would never let it end.
    """

    def __init__(self, chosen: list[tuple[Path, int]], *, on: bool) -> None:
        self._joiner = Joiner()
        self._rest = b""
        self._log = chosen[-1][0]
        self._opened = []
        for path, offset in chosen:
            file = path.open("rb")
            file.seek(offset)
            self._opened.append(file)
        self._end = None if on else os.fstat(self._opened[-1].fileno()).st_size

    def close(self) -> None:
        for file in self._opened:
            file.close()

    def read(self) -> list[Line]:
        """The next lines; [] at the end for now. A renamed file is read to its end before the new one."""
        while True:
            data = self._opened[0].read(self._size())
            if data:
                # Parts of a line alone, as where a rotation came in the middle of one, are not the end.
                if found := self._split(data):
                    return found
                continue
            if self._end is not None and len(self._opened) == 1:
                return []
            if len(self._opened) == 1 and not self._next():
                return []
            if len(self._opened) > 1:
                self._opened.pop(0).close()

    def _size(self) -> int:
        if self._end is None or len(self._opened) > 1:
            return _CHUNK
        return min(_CHUNK, max(0, self._end - self._opened[0].tell()))

    def rest(self) -> list[Line]:
        """What has no newline yet."""
        return self._joiner.rest()

    def _split(self, data: bytes) -> list[Line]:
        *entries, self._rest = (self._rest + data).split(b"\n")
        made = (self._joiner.feed(entry + b"\n") for entry in entries)
        return [line for line in made if line is not None]

    def _next(self) -> bool:
        """Open the files that have come into being since: the new log, and what rotation put between."""
        if not _same(self._log, self._opened[0].fileno()):
            current = self._opened[0].fileno()
            newer: list[Path] = []
            for item in reversed(files(self._log)):
                if _same(item, current):
                    break
                newer.insert(0, item)
            # Once more: what was written between our last read and the rename.
            if os.fstat(current).st_size > self._opened[0].tell():
                return True
            self._opened += [item.open("rb") for item in newer]
            return bool(newer)
        return False


def _same(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False


async def read(
    log: Path, options: LogOptions, *, ended: Callable[[], bool] = lambda: True, events: inotify.Inotify | None = None
) -> AsyncIterator[bytes]:
    """Yield the log as asked for, in chunks; with `follow` until `ended()` says that the container has.

    `events` is needed for `follow` only. Raises FileNotFoundError where there is no log.
    """
    output = _Output(options)
    cursor = _Cursor(await asyncio.to_thread(begin, log, options.tail), on=options.follow)
    changed: asyncio.Event = asyncio.Event()
    watch = None
    if options.follow and events is not None:
        mask = inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO | inotify.IN_CLOSE_WRITE
        watch = events.watch(log.parent, mask, lambda _mask, _name: changed.set())
    try:
        while not output.full:
            # Asked before the read: a container that ends in between has its last lines read next time round.
            over = not options.follow or ended()
            changed.clear()
            found = await asyncio.to_thread(cursor.read)
            if chunk := b"".join(map(output.render, found)):
                yield chunk
            if found:
                continue
            if over:
                if chunk := b"".join(map(output.render, cursor.rest())):
                    yield chunk
                return
            await _wait(changed)
    finally:
        if watch is not None and events is not None:
            events.forget(watch)
        cursor.close()


async def _wait(changed: asyncio.Event) -> None:
    # The end of a container that writes nothing changes no file here: look at it once a second too.
    try:
        async with asyncio.timeout(1.0):
            await changed.wait()
    except TimeoutError:
        return
