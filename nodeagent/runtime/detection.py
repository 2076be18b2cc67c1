"""Finding the OCI runtime, conmon and the node's facts, and refusing what would not work.

Fails with RuntimeNotReady, whose message names the missing program and the Debian package that brings it: it becomes
the message of the node's ContainerRuntimeNotReady condition.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import stat
from pathlib import Path

from nodeagent.runtime import capabilities
from nodeagent.runtime.cgroups import Cgroups
from nodeagent.runtime.command import SEARCH_PATH
from nodeagent.runtime.conmon import Programs
from nodeagent.runtime.process import ProgramTimeout, run
from nodeagent.runtime.spec import Device, Facts

MINIMUM = {"conmon": (2, 1), "crun": (1, 8), "runc": (1, 1)}
RUNTIMES = ("crun", "runc")
_DEADLINE = 10.0


class RuntimeNotReady(Exception):
    """The node cannot run containers, and why (node condition ContainerRuntimeNotReady)."""


async def _version(name: str) -> tuple[str, str]:
    path = shutil.which(name, path=SEARCH_PATH)
    if path is None:
        raise RuntimeNotReady(f"{name} is not installed: install the package {name}")
    try:
        done = await run([path, "--version"], deadline=_DEADLINE)
    except (OSError, ProgramTimeout) as error:
        raise RuntimeNotReady(f"cannot run {path}: {error}") from None
    match = re.search(r"version:?\s+v?(\d+)\.(\d+)(\S*)", done.out)
    if done.code != 0 or match is None:
        raise RuntimeNotReady(f"{path} --version failed: {done.words}")
    found = int(match[1]), int(match[2])
    if found < MINIMUM[name]:
        wanted = ".".join(map(str, MINIMUM[name]))
        raise RuntimeNotReady(f"{path} is version {match[1]}.{match[2]}, at least {wanted} is needed")
    return path, f"{match[1]}.{match[2]}{match[3]}"


async def find_programs(wanted: str, run_directory: Path, cgroups: Cgroups) -> Programs:
    """conmon and the runtime: `wanted` is crun, runc or auto (crun, but runc where crun refuses the cgroups)."""
    if wanted not in ("auto", *RUNTIMES):
        raise RuntimeNotReady(f"runtime {wanted!r} is not one of auto, crun, runc")
    conmon, _ = await _version("conmon")
    problems = []
    for kind in RUNTIMES if wanted == "auto" else (wanted,):
        if kind == "crun" and cgroups.hybrid:
            problems.append("crun does not work with hybrid cgroups (a cgroup2 mount beside v1 controllers)")
            continue
        try:
            path, version = await _version(kind)
        except RuntimeNotReady as problem:
            problems.append(str(problem))
            continue
        return Programs(conmon, path, kind, version, run_directory / "oci")
    raise RuntimeNotReady("; ".join(problems))


def _status_mask(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1], 16)
    return 0


def facts(cgroups: Cgroups, pids_limit: int, cgroup: str) -> Facts:
    """What the spec must know of the node. `cgroup`: one that stands, to see which limits it has."""
    held = capabilities.from_mask(_status_mask("CapEff") & _status_mask("CapBnd"))
    floor = -1000 if "CAP_SYS_RESOURCE" in held else int(Path("/proc/self/oom_score_adj").read_text())
    swap = "memory.swap.max" if cgroups.version == 2 else "memory.memsw.limit_in_bytes"
    return Facts(
        cgroup_version=cgroups.version,
        capabilities=held,
        oom_score_floor=floor,
        open_files=min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 1_048_576),
        swap_limit=any(Path(path, swap).exists() for path in cgroups.paths(cgroup)),
        pids_limit=pids_limit,
        devices=tuple(_devices(Path("/dev"))),
    )


def _devices(directory: Path) -> list[Device]:
    found = []
    for path in sorted(directory.iterdir()):
        # What the OCI runtime makes by itself is left out, and terminals, which are the node's sessions.
        if path.name in {"pts", "shm", "mqueue", "ptmx", "console", "fd", "stdin", "stdout", "stderr", "core"}:
            continue
        info = path.lstat()
        if stat.S_ISDIR(info.st_mode):
            found += _devices(path)
        elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
            kind = "c" if stat.S_ISCHR(info.st_mode) else "b"
            found.append(Device(str(path), kind, os.major(info.st_rdev), os.minor(info.st_rdev), info.st_mode))
    return found
