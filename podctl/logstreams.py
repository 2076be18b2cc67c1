"""Log streams on stdout: one after the other or, when followed, all at once, never mixing within a line."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue

from podctl.client import Client
from podctl.errors import wording
from podctl.failure import Failure
from podplane.errors import PodplaneError
from podplane.v1 import requests_pb2


@dataclass(frozen=True, slots=True)
class Source:
    """One container's log, not yet asked for."""

    client: Client
    request: requests_pb2.LogsRequest

    @property
    def prefix(self) -> bytes:
        return f"[pod/{self.request.name}/{self.request.container}] ".encode()

    def chunks(self) -> Iterator[bytes]:
        """The log's bytes as they come."""
        for chunk in self.client.stream("Pods/Logs", self.request, requests_pb2.LogsChunk):
            yield chunk.data if chunk.WhichOneof("content") == "data" else chunk.text.encode()


def lines(chunks: Iterator[bytes], prefix: bytes) -> Iterator[bytes]:
    """Whole lines with their prefix; a last one without an end is given as it is."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        if whole:
            yield b"".join(prefix + line + b"\n" for line in whole)
    if rest:
        yield prefix + rest


def print_all(sources: Sequence[Source], *, prefix: bool, together: bool, ignore_errors: bool) -> int:
    """Print every log; the exit status. Without `ignore_errors` the first failure ends it."""
    if together and len(sources) > 1:
        return _together(sources, prefix, ignore_errors)
    status = 0
    for source in sources:
        try:
            for data in lines(source.chunks(), source.prefix) if prefix else source.chunks():
                _write(data)
        except (PodplaneError, Failure) as error:
            if not ignore_errors:
                raise
            print(wording(error), file=sys.stderr)
            status = 1
    return status


def _together(sources: Sequence[Source], prefix: bool, ignore_errors: bool) -> int:
    """Each stream is read by a thread of its own; this one alone writes."""
    queue: SimpleQueue[bytes | Exception | None] = SimpleQueue()

    def read(source: Source) -> None:
        try:
            for data in lines(source.chunks(), source.prefix if prefix else b""):
                queue.put(data)
            queue.put(None)
        except Exception as error:  # handed to the writing thread, which raises or prints it
            queue.put(error)

    for source in sources:
        threading.Thread(target=read, args=(source,), name=f"logs {source.request.name}", daemon=True).start()
    status, open_streams = 0, len(sources)
    while open_streams:
        item = queue.get()
        if isinstance(item, bytes):
            _write(item)
            continue
        open_streams -= 1
        if isinstance(item, Exception):
            message = wording(item)
            if not ignore_errors or message is None:
                raise item
            print(message, file=sys.stderr)
            status = 1
    return status


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
