"""What is written down of a container before anything is made for it, and its first process. Only reads."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path

from nodeagent.runtime.conmon import Files


@dataclass(frozen=True, slots=True)
class Record:
    """What must be known of a container to undo it, whoever made it."""

    id: str
    cgroup: str
    log: str
    message: str
    image: str
    stop_signal: int = signal.SIGTERM
    log_is_message: bool = False
    """Where it fails and has left no termination message."""


def read_record(files: Files) -> Record | None:
    """None where there is none or it was not written to its end."""
    try:
        return Record(**json.loads(files.record.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def first_process(files: Files, record: Record) -> int | None:
    """The container's first process in the reader's pid namespace; None where it has ended or never was."""
    try:
        pid = int(files.pid.read_text())
        return pid if f"/{record.cgroup}\n" in Path(f"/proc/{pid}/cgroup").read_text() else None
    except (OSError, ValueError):
        return None
