"""What runs commands inside a VM, asked over a virtio-serial port. Standard library only, on the guest's Python.

One JSON object a line. The host sends {id, argv, env, cwd}, {id, input} (empty: end of input) and {id, signal}; the
agent sends {id, out | err} with base64 and at last {id, status}. Its first line after a start is {hello, seconds}: the
boot it belongs to, and how long a fixed piece of work took here, from which the host derives every deadline.
It keeps nothing: a restarted agent knows of no command, and the host learns so from its hello.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

NAME = "podplane.vm"
PIECE = 32 * 1024
"""Bytes of output in one line."""


def work() -> float:
    """Seconds that a fixed piece of work takes, at best of three."""
    best = float("inf")
    for _ in range(3):
        begun = time.perf_counter()
        total = 0
        for number in range(200_000):
            total += number * number % 7
        best = min(best, time.perf_counter() - begun)
    return best


def port() -> Path:
    """The device of the port with our name."""
    while True:
        for entry in Path("/sys/class/virtio-ports").glob("*/name"):
            if entry.read_text().strip() == NAME:
                device = Path("/dev") / entry.parent.name
                if device.exists():
                    return device
        time.sleep(0.05)


class Agent:
    """The commands that run, and the port."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def say(self, **message: Any) -> None:
        line = json.dumps(message).encode() + b"\n"
        with self._lock:
            while line:
                line = line[os.write(self._fd, line) :]

    def serve(self) -> None:
        """Obey until the port fails."""
        with os.fdopen(os.dup(self._fd), "rb") as lines:
            for line in lines:
                self._obey(json.loads(line))

    def _obey(self, asked: dict[str, Any]) -> None:
        if "argv" in asked:
            self._start(asked)
            return
        process = self._running.get(asked["id"])
        if process is None:
            return
        if "signal" in asked:
            os.killpg(process.pid, asked["signal"])
        elif process.stdin is not None:
            self._feed(process, base64.b64decode(asked["input"]))

    @staticmethod
    def _feed(process: subprocess.Popen[bytes], data: bytes) -> None:
        assert process.stdin is not None
        try:
            if data:
                process.stdin.write(data)
                process.stdin.flush()
            else:
                process.stdin.close()
        except BrokenPipeError:
            pass  # it does not read: its exit status says what that means

    def _start(self, asked: dict[str, Any]) -> None:
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(
                asked["argv"],
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                env={**os.environ, **asked.get("env", {})},
                cwd=asked.get("cwd") or "/",
                start_new_session=True,
            )
        except OSError as error:
            self.say(id=asked["id"], err=base64.b64encode(f"{error}\n".encode()).decode())
            self.say(id=asked["id"], status=127)
            return
        self._running[asked["id"]] = process
        threading.Thread(target=self._follow, args=(asked["id"], process), daemon=True).start()

    def _follow(self, number: int, process: subprocess.Popen[bytes]) -> None:
        streams = [
            threading.Thread(target=self._stream, args=(number, name, stream), daemon=True)
            for name, stream in (("out", process.stdout), ("err", process.stderr))
        ]
        for thread in streams:
            thread.start()
        status = process.wait()
        for thread in streams:
            # A daemon that the command left behind may hold its output: what there is by now has come.
            thread.join(1)
        del self._running[number]
        self.say(id=number, status=status)

    def _stream(self, number: int, name: str, stream: Any) -> None:
        while data := os.read(stream.fileno(), PIECE):
            self.say(id=number, **{name: base64.b64encode(data).decode()})


def main() -> None:
    os.environ.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    os.environ.setdefault("HOME", "/root")
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    agent = Agent(os.open(port(), os.O_RDWR))
    agent.say()  # ends a line that the agent before us may have been cut in
    agent.say(hello=Path("/proc/sys/kernel/random/boot_id").read_text().strip(), seconds=work())
    agent.serve()


if __name__ == "__main__":
    main()
