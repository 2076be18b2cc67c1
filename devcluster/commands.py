"""Running programs: argument vectors only, with a deadline, and with their own words in the error."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from devcluster.errors import DevClusterError
from devcluster.proc import Process

_children: list[subprocess.Popen[bytes]] = []


def run(
    argv: Sequence[str | Path],
    *,
    seconds: float = 30.0,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run to the end and return standard output; DevClusterError with its words where it fails."""
    command = [str(word) for word in argv]
    try:
        done = subprocess.run(
            command,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=environment,
            check=False,
        )
    except FileNotFoundError:
        raise DevClusterError(f"{command[0]} is not installed; `make setup` installs what is needed") from None
    except subprocess.TimeoutExpired:
        raise DevClusterError(f"`{' '.join(command)}` did not end within {seconds:g} s") from None
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip()
        raise DevClusterError(f"`{' '.join(command)}` failed with {done.returncode}: {words}")
    return done.stdout


def start(argv: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None) -> Process:
    """Start a daemon that outlives this process, its output appended to `log`; `environment` is added to ours."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    # Kept, and reaped at the next start: a daemon outlives whoever forgets it, a zombie does not go by itself.
    _children[:] = [one for one in [*_children, child] if one.poll() is None]
    process = Process.of(child.pid)
    if process is None:
        raise DevClusterError(f"{argv[0]} ended at once; see {log}")
    return process


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, for an error message."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(no log)"
