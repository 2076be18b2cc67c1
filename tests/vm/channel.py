"""The host's end of the port to a VM's agent: commands with streamed output and exit status.

One thread reads the socket. When the guest starts anew (hello) or the port ends, every command that was running fails
with GuestGone, so that nobody waits for an answer that cannot come.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any


class GuestGone(Exception):
    """The guest restarted or ended under a command; its effect is unknown."""


class Remote:
    """A command in the guest. Output and errors are what has come so far."""

    def __init__(self, channel: Channel, number: int, argv: list[str], sink: Callable[[bytes], None] | None) -> None:
        self._channel, self._number, self.argv, self._sink = channel, number, argv, sink
        self._changed = threading.Condition()
        self._output = bytearray()
        self._errors = bytearray()
        self._status: int | None = None
        self._gone = ""

    @property
    def output(self) -> bytes:
        with self._changed:
            return bytes(self._output)

    @property
    def errors(self) -> bytes:
        with self._changed:
            return bytes(self._errors)

    def wait(self, seconds: float) -> int:
        """The exit status (negative: the signal). Raises TimeoutError, after killing it, and GuestGone."""
        with self._changed:
            done = self._changed.wait_for(lambda: self._status is not None or self._gone, seconds)
            if self._status is not None:
                return self._status
        if done:
            raise GuestGone(f"{self}: {self._gone}")
        with contextlib.suppress(GuestGone):
            self.signal(9)
        raise TimeoutError(f"{self} did not end within {seconds:.0f} s; it said:\n{self.said()}")

    def until(self, condition: Callable[[bytes], bool], seconds: float) -> bytes:
        """The output, once the condition holds of it."""
        with self._changed:
            met = self._changed.wait_for(
                lambda: condition(bytes(self._output)) or self._status is not None or bool(self._gone), seconds
            )
            if met and condition(bytes(self._output)):
                return bytes(self._output)
        raise AssertionError(f"{self}: output not as awaited; it said:\n{self.said()}")

    def signal(self, number: int) -> None:
        """Send a signal to the command's process group."""
        self._channel.say(id=self._number, signal=number)

    def feed(self, data: bytes) -> None:
        """Write to its input; b"" ends it."""
        for begin in range(0, len(data) or 1, 32768):
            piece = data[begin : begin + 32768]
            self._channel.say(id=self._number, input=base64.b64encode(piece).decode())

    def said(self) -> str:
        """The end of output and errors, for messages."""
        return (self.output[-4000:] + self.errors[-4000:]).decode(errors="replace")

    def __str__(self) -> str:
        return " ".join(self.argv)[:200]

    def take(self, message: dict[str, Any]) -> bool:
        """Called by the channel with what the agent says of it; whether it has ended."""
        piece = base64.b64decode(message.get("out") or message.get("err") or "")
        if piece and self._sink is not None:
            self._sink(piece)
        with self._changed:
            (self._output if "out" in message else self._errors).extend(piece)
            self._status = message.get("status")
            self._changed.notify_all()
            return self._status is not None

    def lose(self, why: str) -> None:
        """Called by the channel when no answer can come any more."""
        with self._changed:
            self._gone = why
            self._changed.notify_all()


class Channel:
    """The port to one VM, over all its boots."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._greeted = threading.Condition()
        self._remotes: dict[int, Remote] = {}
        self.boot_id = ""
        self.seconds = 0.0
        self.closed = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def start(
        self,
        argv: list[str],
        env: dict[str, str] | None = None,
        cwd: str = "",
        sink: Callable[[bytes], None] | None = None,
    ) -> Remote:
        """Start a command; sink is called with each piece of its output, by the reading thread."""
        number = next(self._numbers)
        remote = Remote(self, number, argv, sink)
        with self._lock:
            self._remotes[number] = remote
        self.say(id=number, argv=argv, env=env or {}, cwd=cwd)
        return remote

    def greeting(self, other_than: str, seconds: float) -> str:
        """The boot id of a guest that has said hello and is not that one."""
        with self._greeted:
            self._greeted.wait_for(lambda: self.closed or self.boot_id not in ("", other_than), seconds)
            if self.closed:
                raise GuestGone("the VM ended before its agent said hello")
            if self.boot_id in ("", other_than):
                raise TimeoutError(f"the VM's agent did not say hello within {seconds:.0f} s")
            return self.boot_id

    def say(self, **message: Any) -> None:
        line = json.dumps(message).encode() + b"\n"
        try:
            with self._lock:
                self._socket.sendall(line)
        except OSError as error:
            raise GuestGone(f"the VM's port is closed: {error}") from None

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._socket.close()

    def _read(self) -> None:
        with contextlib.suppress(OSError), self._socket.makefile("rb") as lines:
            for line in lines:
                try:
                    message = json.loads(line)
                except ValueError:
                    continue  # a line that a dying guest was cut in; a hello follows
                self._take(message)
        self._lose("the VM ended")
        with self._greeted:
            self.closed = True
            self._greeted.notify_all()

    def _take(self, message: dict[str, Any]) -> None:
        if "hello" in message:
            self._lose("the VM's agent started anew")
            with self._greeted:
                self.boot_id, self.seconds = message["hello"], message["seconds"]
                self._greeted.notify_all()
            return
        with self._lock:
            remote = self._remotes.get(message.get("id", 0))
        if remote is not None and remote.take(message):
            with self._lock:
                self._remotes.pop(message["id"], None)

    def _lose(self, why: str) -> None:
        with self._lock:
            lost, self._remotes = list(self._remotes.values()), {}
        for remote in lost:
            remote.lose(why)


def show(piece: bytes) -> None:
    """A sink that prints, for long commands."""
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
