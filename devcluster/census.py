"""Who belongs to a cluster, read from /proc: daemons by their arguments, the rest by namespace or cgroup.

Only `empty` changes anything. What a record says may have died, and what runs may never have been recorded: somebody
restarted it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from devcluster.proc import Process, command_line, inside, kill, pids


def daemons(root: Path) -> dict[Process, list[str]]:
    """Podplane's programs that run on state below `root`, whoever started them, with their arguments."""
    found = {}
    for pid in pids():
        words = command_line(pid)
        ours = any("podplane-" in word for word in words[:6]) and {"serve", "run"} & set(words)
        if ours and pid != os.getpid() and _names(words, root) and (process := Process.of(pid)):
            found[process] = words
    return found


def _names(words: Iterable[str], root: Path) -> bool:
    return any(word == str(root) or word.startswith(f"{root}/") for word in words)


def inhabitants(holders: Sequence[Process]) -> list[Process]:
    """Whatever runs in the namespaces of these holders, the holders excepted."""
    files = [holder.namespace(name) for holder in holders for name in ("net", "mnt")]
    keep = {holder.pid for holder in holders}
    found = [Process.of(pid) for pid in pids() if pid not in keep and inside(pid, files)]
    return [process for process in found if process is not None]


def in_pods(prefix: str) -> set[int]:
    """Pids of the processes of containers in pods' cgroups below a root cgroup whose name begins with `prefix`."""
    return {pid for pid in pids() if "/pod" in _below(pid, prefix) and Process.of(pid) is not None}


def _below(pid: int, prefix: str) -> str:
    """The cgroup of a process from `prefix` on; "" where it is in none below such a one."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return next((found for line in groups if (found := line.partition(f":/{prefix}")[2])), "")


def empty(prefix: str) -> None:
    """End all that is in the cgroups whose name begins with `prefix`, and remove them."""
    while found := [process for pid in pids() if _below(pid, prefix) and (process := Process.of(pid)) is not None]:
        kill(found)
    for top in Path("/sys/fs/cgroup").glob(f"*/{prefix}*"):
        for directory, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):  # it is held by what has not been reaped
                os.rmdir(directory)
