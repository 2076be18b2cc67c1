"""podctl in a process of its own: with pipes, or on a terminal at which a test types."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import termios
import time
from typing import Self

from devcluster.cluster import Cluster


def podctl(
    cluster: Cluster, *words: str, stdin: bytes = b"", seconds: float = 30
) -> subprocess.CompletedProcess[bytes]:
    """One command line against a cluster, to its end."""
    argv = [str(cluster.podctl), *words]
    return subprocess.run(argv, env=cluster.environment, input=stdin, capture_output=True, timeout=seconds, check=False)


class Terminal:
    """podctl on a terminal of `size` rows and columns. Use as a context manager: podctl ends with it."""

    def __init__(self, cluster: Cluster, *words: str, size: tuple[int, int] = (24, 80)) -> None:
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, size)
        os.set_blocking(self._ours, False)
        self._text = ""
        argv = [str(cluster.podctl), *words]
        self._child = subprocess.Popen(
            argv, env=cluster.environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.wait()
        os.close(self._ours)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Another size, of which podctl is told as a terminal's foreground process is."""
        termios.tcsetwinsize(self._ours, (rows, columns))
        self._child.send_signal(signal.SIGWINCH)  # no session has this terminal: the kernel tells nobody

    def read_until(self, *wanted: str, seconds: float = 15) -> str:
        """What was shown since the last call, once all that is wanted has been, in that order."""
        deadline = time.monotonic() + seconds
        while (end := self._end(wanted)) is None:
            left = deadline - time.monotonic()
            assert left > 0, f"{wanted} not shown within {seconds:g} s; shown: {self._text!r}"
            if not select.select([self._ours], [], [], left)[0]:
                continue
            try:
                self._text += os.read(self._ours, 4096).decode(errors="replace")
            except OSError:
                raise AssertionError(f"podctl has ended; the terminal shows {self._text!r}") from None
        shown, self._text = self._text[:end], self._text[end:]
        return shown

    def _end(self, wanted: tuple[str, ...]) -> int | None:
        position = 0
        for one in wanted:
            found = self._text.find(one, position)
            if found < 0:
                return None
            position = found + len(one)
        return position

    def ended(self, seconds: float = 15) -> int:
        """The exit status."""
        return self._child.wait(timeout=seconds)
