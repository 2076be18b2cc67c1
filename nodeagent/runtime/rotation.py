"""Keeps container logs within their bound: at 10 MiB a log is renamed, and conmon is told to begin a new one.

Owns the names <attempt>.log.1 (the youngest) to .log.<keep - 1>. Renames before it tells conmon, so that no line is
lost: conmon writes on to the renamed file until it has opened the new one. A failure is logged and tried again at the
next round; while no agent runs, conmon's own limit bounds the file.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

logger = logging.getLogger(__name__)


def rotate(log: Path, keep: int) -> None:
    """Rename a log and its predecessors; the oldest goes. `keep`: how many files in all."""
    log.with_name(f"{log.name}.{keep - 1}").unlink(missing_ok=True)
    for number in range(keep - 2, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.rename(log.with_name(f"{log.name}.{number + 1}"))
    log.rename(log.with_name(f"{log.name}.1"))


class LogRotator:
    """Looks at the logs of the living containers every `interval` seconds."""

    def __init__(
        self, logs: Callable[[], Iterable[tuple[str, Path]]], reopen: Callable[[str], None], *,
        limit: int = 10 << 20, keep: int = 5, interval: float = 10.0,
    ) -> None:  # fmt: skip
        """logs: (container id, log file) of the living; reopen: makes conmon begin a new file."""
        self._logs, self._reopen = logs, reopen
        self._limit, self._keep, self._interval = limit, keep, interval

    async def run(self) -> None:
        """Rotate until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            await asyncio.to_thread(self.round, list(self._logs()))

    def round(self, logs: Iterable[tuple[str, Path]]) -> None:
        """Look at every log once."""
        for id, log in logs:
            try:
                self._look(id, log)
            except FileNotFoundError:
                continue
            except OSError as error:
                logger.warning("cannot rotate log %s: %s", log, error)

    def _look(self, id: str, log: Path) -> None:
        try:
            if log.stat().st_size < self._limit:
                return
            rotate(log, self._keep)
        except FileNotFoundError:
            if not log.with_name(f"{log.name}.1").exists():
                return
            # An agent was killed between the rename and its word to conmon.
        self._reopen(id)
