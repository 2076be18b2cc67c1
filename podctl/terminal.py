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

from podplane.v1.requests_pb2 import ExecRequest

_CHUNK = 32 << 10


class Input:
    """What the caller says after the first frame. Use as a context manager, in the main thread."""

    def __init__(self, *, stdin: bool, raw: bool) -> None:
        self._stdin = stdin
        self._raw = raw
        self._saved: list[object] | None = None
        self._reading, self._writing = -1, -1

    def __enter__(self) -> Self:
        self._reading, self._writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._raw:
            self._saved = termios.tcgetattr(0)
            tty.setraw(0)
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


def print_frame(kind: str, data: bytes) -> None:
    """Write a frame's bytes where they belong, at once."""
    stream = sys.stderr.buffer if kind == "stderr" else sys.stdout.buffer
    stream.write(data)
    stream.flush()


def _size() -> ExecRequest:
    width, height = 80, 24
    with contextlib.suppress(OSError):
        width, height = os.get_terminal_size(0)
    return ExecRequest(resize=ExecRequest.Resize(width=width, height=height))
