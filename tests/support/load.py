"""Requests on new connections, as fast as they go, by a process of its own; every one that fails is told.

    python -m tests.support.load PORT WORKERS PAUSE ADDRESS...

Each worker asks the addresses in turn, PAUSE seconds apart, until the input ends; then, with no request under way, one
line of JSON: {"done": requests, "failed": how many of them, "words": the first few failures}. Before that, a line a
second.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REQUEST = b"GET / HTTP/1.0\r\nHost: test\r\n\r\n"
SECONDS = 10.0
"""After which a request has failed."""
_SHOWN = 10


@dataclass(slots=True)
class _Count:
    done: int = 0
    failed: int = 0
    words: list[str] = field(default_factory=list)

    def line(self) -> str:
        return json.dumps({"done": self.done, "failed": self.failed, "words": self.words})


async def _ask(address: str, port: int) -> None:
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(REQUEST)
        answer = await reader.read()
    finally:
        writer.close()
    if not answer.startswith((b"HTTP/1.0 200", b"HTTP/1.1 200")):
        raise OSError(f"answered {answer[:60]!r}")


async def _worker(count: _Count, addresses: Sequence[str], port: int, pause: float, stop: asyncio.Event) -> None:
    for address in itertools.cycle(addresses):
        if stop.is_set():
            return
        try:
            async with asyncio.timeout(SECONDS):
                await _ask(address, port)
        except (OSError, TimeoutError) as error:
            count.failed += 1
            if len(count.words) < _SHOWN:
                count.words.append(f"{address}: {error!r}")
        count.done += 1
        if pause:
            await asyncio.sleep(pause)


async def _main(port: int, workers: int, pause: float, addresses: Sequence[str]) -> None:
    count, stop = _Count(), asyncio.Event()
    loop = asyncio.get_running_loop()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(stop.set)), daemon=True).start()
    async with asyncio.TaskGroup() as group:
        for number in range(workers):
            turned = [*addresses[number % len(addresses) :], *addresses[: number % len(addresses)]]
            group.create_task(_worker(count, turned, port, pause, stop))
        while not stop.is_set():
            print(count.line(), flush=True)
            try:
                async with asyncio.timeout(1.0):
                    await stop.wait()
            except TimeoutError:
                continue
    print(count.line(), flush=True)


class Load:
    """The process, and what it has counted so far."""

    def __init__(
        self, port: int, addresses: Sequence[str], workers: int = 8, pin: Path | None = None, pause: float = 0.0
    ) -> None:
        """`pin`: the network namespace to ask from."""
        within = [] if pin is None else ["nsenter", f"--net={pin}"]
        argv = [*within, sys.executable, "-m", "tests.support.load", str(port), str(workers), str(pause),
                *addresses]  # fmt: skip
        checkout = Path(__file__).resolve().parents[2]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=checkout)
        self.counted: dict[str, Any] = {"done": 0, "failed": 0, "words": []}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.counted = json.loads(line)

    @property
    def done(self) -> int:
        """How many requests have ended."""
        return int(self.counted["done"])

    def end(self) -> dict[str, Any]:
        """Let what is under way end; the whole count."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._reader.join(timeout=2 * SECONDS)
        assert self._process.wait(timeout=SECONDS) == 0
        assert self._process.stdout is not None
        self._process.stdout.close()
        return self.counted


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]))
