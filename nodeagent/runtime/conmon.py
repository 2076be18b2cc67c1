"""What is said to conmon and what it answers: its command line, its sync file, and the meaning of failures. Pure.

conmon 2.1: `--sync` is not given, so it leaves its parent and outlives the agent; _OCI_SYNCPIPE names the descriptor
of a regular file, where it writes one line of JSON: {"data": <pid>} or {"data": -1, "message": "..."}.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nodeagent.types import ContainerRequest, RuntimeFailure

LOG_LIMIT = 64 << 20
"""Bytes of a log file before conmon starts it anew by itself: the bound while no agent rotates it."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Absolute paths of the programs, and the runtime's private state directory."""

    conmon: str
    runtime: str
    kind: str
    """crun or runc."""
    version: str
    root: Path


@dataclass(frozen=True)
class Files:
    """The files of one container below run/containers/<id>, and those that it shares a directory with."""

    run: Path
    id: str

    @cached_property
    def bundle(self) -> Path:
        return self.run / "containers" / self.id

    @cached_property
    def record(self) -> Path:
        return self.bundle / "record.json"

    @cached_property
    def sync(self) -> Path:
        return self.bundle / "sync"

    @cached_property
    def pid(self) -> Path:
        return self.bundle / "pid"

    @cached_property
    def conmon_pid(self) -> Path:
        return self.bundle / "conmon.pid"

    @cached_property
    def persist(self) -> Path:
        return self.bundle / "persist"

    @cached_property
    def ctl(self) -> Path:
        return self.bundle / "ctl"

    @cached_property
    def exit(self) -> Path:
        return self.run / "exits" / self.id

    @cached_property
    def short(self) -> str:
        """A short name: a socket's path has at most 107 bytes."""
        return hashlib.sha256(self.id.encode()).hexdigest()[:20]

    @cached_property
    def attach(self) -> Path:
        return self.run / "attach" / self.short


def command(programs: Programs, runtime: str, files: Files, request: ContainerRequest, log: Path) -> list[str]:
    """conmon's command line for `create`; `runtime`: under which path conmon finds it."""
    argv = [
        programs.conmon, "--api-version", "1", "-c", files.id, "-u", files.short, "-n", request.name,
        "-r", runtime, f"--runtime-arg=--root={programs.root}", "-b", str(files.bundle),
        "-p", str(files.pid), "-P", str(files.conmon_pid), "--exit-dir", str(files.exit.parent),
        "--persist-dir", str(files.persist), "--socket-dir-path", str(files.attach.parent),
        "-l", f"k8s-file:{log}", "--log-size-max", str(LOG_LIMIT), "--log-level", "error", "--no-sync-log",
    ]  # fmt: skip
    stays = request.stdin and not request.stdin_once
    return argv + ["-i"] * request.stdin + ["--leave-stdin-open"] * stays + ["-t"] * request.tty


def answer(text: str) -> int | None:
    """The container's pid from the sync file; None while the line is not complete. Raises RuntimeFailure."""
    if not text.endswith("\n"):
        return None
    said = json.loads(text.splitlines()[0])
    pid = int(said.get("data", said.get("pid", -1)))
    if pid > 0:
        return pid
    raise failure(str(said.get("message") or "the runtime gave no reason"))


_COMMAND = re.compile(
    r"executable file .*not found|open executable: |exec container process|exec format error"
    r"|exec: \".*\": (stat .*: )?(no such file|permission denied|is a directory|not a directory)"
    r"|starting container process caused|unable to start container process: exec",
    re.IGNORECASE,
)


def failure(words: str) -> RuntimeFailure:
    """Which status a failure of the runtime is: RunContainerError is a command that is missing or not executable."""
    message = " ".join(words.split())
    return RuntimeFailure("RunContainerError" if _COMMAND.search(message) else "CreateContainerError", message)
