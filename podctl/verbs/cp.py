"""podctl cp: files and directories to and from containers, through a tar that runs in the container.

As kubectl does, and on purpose: the tar has the container's user, filters, limits and view of its volumes, so that cp
can do what exec can and nothing more, and no privileged process of the node reads or writes for a caller. It needs a
tar in the image. What a container sends is not trusted: podctl/copying.py.
"""

from __future__ import annotations

import os
import posixpath
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podctl.client import Client, connect
from podctl.copying import Target, end_of_archive, pack
from podctl.failure import Failure, UsageFailure
from podctl.flags import Parser
from podctl.podtarget import default_container
from podplane.kinds import POD
from podplane.v1.requests_pb2 import ExecRequest, ExecResponse

USAGE = "(FILE [NAMESPACE/]POD:PATH | [NAMESPACE/]POD:PATH FILE) [-c CONTAINER] [--no-preserve]"
EXAMPLES = """
  podctl cp page.html web:/usr/share/nginx/html/
  podctl cp shop/web:/var/log ./logs -c app
  podctl cp web:/etc/hostname /dev/stdout
"""

_FORMAT = "error: filespec must match the canonical format: [[namespace/]pod:]file/path"


@dataclass(frozen=True, slots=True)
class Place:
    """A path here, or in a pod."""

    path: str
    pod: str = ""
    namespace: str = ""


def configure(parser: Parser) -> None:
    parser.add_argument("what", metavar="SOURCE TARGET", nargs="*", help="a path here and [NAMESPACE/]POD:PATH")
    parser.add_argument("-c", "--container", metavar="NAME", help="the container (the default one, or the first)")
    parser.switch("--no-preserve", help="to a container: leave owners and modes to its user and umask")
    parser.switch("-q", "--quiet", help="show no progress")


def run(args: Namespace) -> int:
    if len(args.what) != 2:
        raise UsageFailure("source and destination are required", "cp")
    source, target = (parse_place(word) for word in args.what)
    if bool(source.pod) == bool(target.pod):
        which = "one of src or dest must be a local file specification" if source.pod else "one must be POD:PATH"
        raise Failure(f"error: {which}")
    if not source.path or not target.path:
        raise Failure("error: filepath can not be empty")
    if target.pod and not os.path.lexists(source.path):
        raise Failure(f"error: {source.path} doesn't exist in local filesystem")
    with connect(args) as client:
        shell = _Shell(args, client, source if source.pod else target)
        if source.pod:
            return _download(shell, source.path, Path(target.path))
        return _upload(shell, source.path, target.path, preserve=not args.no_preserve)


def parse_place(word: str) -> Place:
    """`pod:path`, `namespace/pod:path`, or a path here; one that begins with / or . is always here."""
    pod, separator, path = word.partition(":")
    if not separator or word.startswith(("/", "./", "../")):
        return Place(word)
    namespace, slash, name = pod.rpartition("/")
    if not name or (slash and not namespace) or "/" in namespace:
        raise Failure(_FORMAT)
    return Place(path, name, namespace)


class _Shell:
    """Commands in one container, and the progress of what they carry."""

    def __init__(self, args: Namespace, client: Client, place: Place) -> None:
        self._client = client
        pod = client.get(POD, place.namespace or client.namespace, place.pod)
        if pod.status.phase in ("Succeeded", "Failed"):
            phase = pod.status.phase
            raise Failure(f"error: cannot exec into a container in a completed pod; current phase is {phase}")
        self._pod = pod
        self._container = args.container or default_container(pod, quiet=args.quiet)
        self.progress = _Progress(shown=sys.stderr.isatty() and not args.quiet)

    def open(self, command: Sequence[str], stdin: Iterator[bytes] | None = None) -> Iterator[Any]:
        """The frames of one exec."""
        metadata = self._pod.metadata
        start = ExecRequest.Start(
            namespace=metadata.namespace,
            name=metadata.name,
            container=self._container,
            command=command,
            stdin=stdin is not None,
        )
        return self._client.duplex("Pods/Exec", _requests(start, stdin), ExecResponse)

    def warn(self, words: str) -> None:
        self.pass_on(f"{words}\n".encode())

    def pass_on(self, data: bytes) -> None:
        """What a command says on stderr."""
        self.progress.clear()
        sys.stderr.buffer.write(data)
        sys.stderr.flush()


class _Output:
    """What a command prints, as a file to read; its stderr is passed on. `exit` is set at its end."""

    def __init__(self, frames: Iterator[Any], shell: _Shell) -> None:
        self._frames, self._shell = frames, shell
        self._rest = memoryview(b"")
        self.exit: Any = None

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        while not self._rest and self.exit is None:
            frame = next(self._frames, None)
            if frame is None:
                raise Failure("error: the stream ended without an exit status")
            kind = frame.WhichOneof("frame")
            if kind == "exit":
                self.exit = frame.exit
            elif kind == "stderr":
                self._shell.pass_on(frame.stderr)
            elif kind == "stdout":
                self._rest = memoryview(frame.stdout)
        data, self._rest = bytes(self._rest[:size]), self._rest[size:]
        self._shell.progress.add(len(data))
        return data


class _Progress:
    """The bytes carried so far, on a terminal, some times a second."""

    def __init__(self, *, shown: bool) -> None:
        self._shown, self._bytes, self._next = shown, 0, time.monotonic() + 0.5

    def add(self, size: int) -> None:
        self._bytes += size
        if self._shown and time.monotonic() >= self._next:
            self._next = time.monotonic() + 0.2
            print(f"\r{self._bytes / (1 << 20):.1f} MiB", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _requests(start: ExecRequest.Start, stdin: Iterator[bytes] | None) -> Iterator[ExecRequest]:
    yield ExecRequest(start=start)
    for data in stdin or ():
        yield ExecRequest(stdin=data)
    yield ExecRequest(closeStdin=True)


def _download(shell: _Shell, source: str, target: Path) -> int:
    directory, base = posixpath.split(source.rstrip("/"))
    if base in ("", ".", ".."):  # the directory's content
        directory, base = posixpath.normpath(source), "."
    if target.is_dir() and base != ".":
        target /= base
    elif not target.parent.is_dir():
        raise Failure(f"error: {target.parent} is no directory here")
    output = _Output(shell.open(["tar", "cf", "-", "-C", directory or ".", "--", base]), shell)
    place = Target(target, base, shell.warn)
    try:
        place.unpack(output.read)
    except Failure:
        # An archive that is no archive is what a tar that failed leaves: its own words count for more.
        while output.read(1 << 16):
            pass
        if not output.exit.code:
            raise
    return _ended(shell, output.exit)


def _upload(shell: _Shell, source: str, target: str, *, preserve: bool) -> int:
    base = os.path.basename(source.rstrip("/"))
    if base not in ("", ".", "..") and (target.endswith("/") or _is_directory(shell, target)):
        target = posixpath.join(target, base)
    directory, name = posixpath.split(posixpath.normpath(target))
    if not name or name == "..":
        directory, name = posixpath.normpath(target), "."
    flags = ["-xmf", "-"] if preserve else ["--no-same-permissions", "--no-same-owner", "-xmf", "-"]
    sending = _Sending(Path(source), name, shell)
    output = _Output(shell.open(["tar", *flags, "-C", directory or "."], sending.chunks()), shell)
    while data := output.read(1 << 16):
        sys.stdout.buffer.write(data)
    if sending.failure is not None:
        shell.progress.clear()
        raise Failure(f"error: cannot read {sending.failure.filename}: {sending.failure.strerror}")
    return _ended(shell, output.exit)


class _Sending:
    """The archive of what is here. gRPC's thread reads it: a failure is kept for the main thread."""

    def __init__(self, source: Path, name: str, shell: _Shell) -> None:
        self._source, self._name, self._shell = source, name, shell
        self.failure: OSError | None = None

    def chunks(self) -> Iterator[bytes]:
        try:
            for data in pack(self._source, self._name, self._shell.warn):
                if data:
                    self._shell.progress.add(len(data))
                    yield data
        except OSError as error:
            self.failure = error  # without the end of the archive, tar fails too
            return
        yield end_of_archive()


def _is_directory(shell: _Shell, path: str) -> bool:
    *_, last = shell.open(["test", "-d", path])
    return bool(last.exit.code == 0)


def _ended(shell: _Shell, end: Any) -> int:
    shell.progress.clear()
    if end.code in (126, 127):
        raise Failure(f"error: {end.message}\ncp runs tar in the container: is there one in its image?", end.code)
    if end.code:
        raise Failure(f"command terminated with exit code {end.code}", end.code)
    return 0
