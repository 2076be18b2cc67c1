"""The terminal or pipe that podctl runs on, as the frames of an exec or attach: stdin, its end, and its size.

Owns raw mode and gives the terminal back as it was, however the command ends. Never takes more input than was asked
for: what is typed after the command's end is the shell's.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Self

from podctl.client import Client
from podctl.failure import Failure
from podplane.v1.requests_pb2 import ExecRequest, ExecResponse

_CHUNK = 32 << 10


class Input:
    """What the caller says after the first frame. Use as a context manager, in the main thread."""

    def __init__(self, *, stdin: bool, raw: bool, redraw: bool = False) -> None:
        """`redraw`: begin with another size than the terminal's, so that what is drawn already is drawn again."""
        self._stdin, self._raw, self._redraw = stdin, raw, redraw
        self._saved: list[object] | None = None
        self._reading, self._writing = -1, -1

    def __enter__(self) -> Self:
        self._reading, self._writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._raw:
            self._saved = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSADRAIN)  # what was typed ahead is for the container
            # The number of every signal is written into the pipe: SIGWINCH wakes the generator below.
            signal.signal(signal.SIGWINCH, lambda _number, _frame: None)
            signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        if self._saved is not None:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGWINCH, signal.SIG_DFL)
            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]
        # Closing the writing end ends the generator, which gRPC's thread runs and which closes the other.
        os.close(self._writing)

    def frames(self, first: ExecRequest) -> Iterator[ExecRequest]:
        """`first`, then what is typed or piped in, until its end or the end of this object."""
        try:
            yield first
            if self._raw and self._redraw:
                yield _size(1)
            if self._raw:
                yield _size()
            yield from self._typed()
        finally:
            os.close(self._reading)

    def _typed(self) -> Iterator[ExecRequest]:
        waited = [self._reading, *([0] if self._stdin else [])]
        while True:
            ready, _, _ = select.select(waited, [], [])
            if self._reading in ready:
                numbers = os.read(self._reading, 64)
                if not numbers:
                    return
                if signal.SIGWINCH in numbers:
                    yield _size()
            elif data := os.read(0, _CHUNK):
                yield ExecRequest(stdin=data)
            else:
                yield ExecRequest(closeStdin=True)
                waited = [self._reading]


def is_terminal() -> bool:
    """Whether somebody types."""
    return sys.stdin.isatty()


def converse(
    client: Client, method: str, start: ExecRequest.Start, *, raw: bool, redraw: bool = False
) -> ExecResponse.Exit:
    """Pass everything on in both directions until the command's end, and return that."""
    with Input(stdin=start.stdin, raw=raw, redraw=redraw) as given:
        for frame in client.duplex(method, given.frames(ExecRequest(start=start)), ExecResponse):
            kind = frame.WhichOneof("frame")
            if kind == "exit":
                return frame.exit
            if kind is not None:
                _print(kind, getattr(frame, kind))
    raise Failure("error: the stream ended without an exit status")


def _print(kind: str, data: bytes) -> None:
    """Write a frame's bytes where they belong, at once."""
    stream = sys.stderr.buffer if kind == "stderr" else sys.stdout.buffer
    stream.write(data)
    stream.flush()


def _size(more: int = 0) -> ExecRequest:
    width, height = 80, 24
    with contextlib.suppress(OSError):
        width, height = os.get_terminal_size(0)
    return ExecRequest(resize=ExecRequest.Resize(width=width + more, height=height + more))
