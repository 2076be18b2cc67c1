"""What is measured: something that makes a kernel's rules of services; and our own modes as such."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bench.rules.scale import RANGES, Services
from nodeagent.proxy.mode import Mode, Step, Wanted, differing
from nodeagent.proxy.modes import KINDS, Kind


class Subject(Protocol):
    """In a namespace of its own, used by one task.

    prepare() is not measured where the subject is a replica: that is for what the peer's own program would do, which we
    have not got. What write() does is.
    """

    async def prepare(self, services: Services) -> None: ...

    async def write(self) -> None:
        """Bring the kernel to what was prepared last. Raises whatever goes wrong."""
        ...

    async def close(self) -> None: ...


class Ours:
    """One of our proxy modes, from values to the kernel: all of it is measured.

    Which values have changed the mode is told, as the agent is by its feed (nodeagent/proxy/desired.py).
    """

    def __init__(self, mode: Mode, run: tempfile.TemporaryDirectory[str]) -> None:
        """run: where the mode keeps what must outlive an agent."""
        self._mode, self._run = mode, run
        self._wanted = Wanted(RANGES)

    async def prepare(self, services: Services) -> None:
        before, after = self._wanted.services, dict(services)
        self._wanted = Wanted(RANGES, after, step=Step(before, differing(before, after)))

    async def write(self) -> None:
        if refused := await self._mode.apply(self._wanted):
            key, words = next(iter(refused.items()))
            raise RuntimeError(f"{len(refused)} services were refused: {key}: {words}")

    async def close(self) -> None:
        await self._mode.close()
        self._run.cleanup()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A subject by its name. missing: why it cannot be had here, found by trying; "" where it can."""

    name: str
    open: Callable[[], Coroutine[Any, Any, Subject]]
    missing: Callable[[], Coroutine[Any, Any, str]]


def own(name: str, flavour: str = "") -> Candidate:
    """One of our modes. flavour: of iptables."""
    kind: Kind = next(kind for kind in KINDS if kind.name == name)

    async def open() -> Subject:
        if flavour == "legacy":  # the agent takes it where legacy tables hold rules already
            legacy = ["iptables-legacy", "-t", "nat", "-A", "POSTROUTING", "-s", "203.0.113.0/24", "-j", "RETURN"]
            await asyncio.to_thread(subprocess.run, legacy, check=True, timeout=10)
        run = tempfile.TemporaryDirectory()
        return Ours(await kind.open("rr", Path(run.name)), run)

    return Candidate(f"{name} ({flavour})" if flavour else name, open, kind.missing)
