"""The pause process: PID 1 of a pod whose containers share their processes (shareProcessNamespace).

A pid namespace ends with its first process, so that it cannot be kept by a pin alone, as a pod's other namespaces are.
It is Debian's catatonit, which does nothing but reap, under the OCI runtime, so that a container that gets hold of it
gains nothing: a root of its own with nothing in it, nobody's user, no capability, the default seccomp filter. It has no
conmon: nobody asks how it ended.

Owns run/pause/root (what it sees), run/pause/bundles/<sandbox> and its cgroup, which its caller has written down: all
that is in it is ended, whoever began it. Fails with RuntimeFailure.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodeagent.runtime import spec
from nodeagent.runtime.bundle import write_private
from nodeagent.runtime.cgroups import Cgroups
from nodeagent.runtime.command import SEARCH_PATH
from nodeagent.runtime.conmon import Programs
from nodeagent.runtime.ending import kill_cgroup
from nodeagent.runtime.filters import Filters
from nodeagent.runtime.process import ProgramTimeout, run
from nodeagent.runtime.rootfs import remove_tree
from nodeagent.types import RuntimeFailure, Sandbox

PROGRAM = "catatonit"
REASON = "FailedCreatePodSandBox"
_NOBODY = 65535
"""The user of Kubernetes' pause image: of nothing on the node."""
_OOM_SCORE = -998
_DEADLINE = 20.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What starting takes, and ending does not."""

    programs: Programs
    facts: spec.Facts
    filters: Filters


class PauseProcesses:
    """Those of one node. `parts`: None where there is only something to end."""

    def __init__(self, run: Path, cgroups: Cgroups, parts: Parts | None) -> None:
        self._base, self._cgroups, self._parts = run / "pause", cgroups, parts

    async def start(self, box: Sandbox, cgroup: str) -> int:
        """Start one in the sandbox's namespaces and a new pid namespace; returns its pid. What ran before is ended."""
        program, parts = shutil.which(PROGRAM, path=SEARCH_PATH), self._parts
        if program is None or parts is None:
            words = f"pods with shareProcessNamespace need {PROGRAM}: install the package {PROGRAM}"
            raise RuntimeFailure(REASON, words)
        await self.end(box.id, cgroup)
        bundle, states = self._bundle(box.id), self._base / "states"
        filter, key = parts.filters.filter("RuntimeDefault", ())
        config = oci_spec(box, cgroup, self._base / "root", program, parts.facts, filter)
        try:
            await asyncio.to_thread(self._prepare, bundle, config)
            # A descendant of nobody: the runtime leaves it to init, so that it outlives the agent.
            argv = [parts.programs.runtime, f"--root={states}", "run", "--detach", "--bundle", str(bundle),
                    "--pid-file", str(bundle / "pid"), box.id]  # fmt: skip
            done = await run(argv, deadline=_DEADLINE)
            if done.code != 0:
                raise RuntimeFailure(REASON, f"cannot start the pause process: {done.words}")
            parts.filters.learn(key, states / box.id / "seccomp.bpf")
            remove_tree(states / box.id)  # the runtime is asked no more about it
            return int((bundle / "pid").read_text())
        except (OSError, ValueError, ProgramTimeout) as error:
            raise RuntimeFailure(REASON, f"cannot start the pause process: {error}") from error

    async def end(self, id: str, cgroup: str) -> None:
        """End a sandbox's pause process and remove every trace of it; nothing to do where there is none."""
        await kill_cgroup(self._cgroups, cgroup, _DEADLINE)
        try:
            await asyncio.to_thread(self._clean, id, cgroup)
        except OSError as error:
            raise RuntimeFailure(REASON, f"cannot remove the pause process: {error}") from error

    def _prepare(self, bundle: Path, config: Mapping[str, Any]) -> None:
        root = self._base / "root"
        for name in ("proc", "dev"):
            (root / name).mkdir(mode=0o755, parents=True, exist_ok=True)
        (root / "pause").touch(mode=0o755)
        root.chmod(0o755)  # nobody's user walks it as its own root; the way to it is the daemon's alone
        bundle.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(bundle / "config.json", json.dumps(config))

    def _clean(self, id: str, cgroup: str) -> None:
        if not self._cgroups.remove(cgroup):
            raise OSError(f"cgroup {cgroup} still has processes")
        for path in (self._base / "states" / id, self._bundle(id)):
            remove_tree(path)

    def _bundle(self, id: str) -> Path:
        return self._base / "bundles" / id


def oci_spec(
    box: Sandbox, cgroup: str, root: Path, program: str, facts: spec.Facts, filter: spec.Filter
) -> dict[str, Any]:
    """Its config.json. Pure."""
    shared = {"network": box.net, "uts": box.uts, "ipc": box.ipc}
    linux: dict[str, Any] = {
        "namespaces": [
            *({"type": kind} for kind in ("mount", "pid", *(["cgroup"] if facts.cgroup_version == 2 else []))),
            *({"type": kind, "path": str(path)} for kind, path in shared.items() if path),
        ],
        "cgroupsPath": f"/{cgroup}",
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "maskedPaths": list(spec.MASKED_PATHS),
        "readonlyPaths": list(spec.READONLY_PATHS),
    }
    if filter.profile is not None:
        linux["seccomp"] = dict(filter.profile)
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": _NOBODY, "gid": _NOBODY},
            "args": ["/pause", "-P"],
            "env": [],
            "cwd": "/",
            "capabilities": {"bounding": [], "effective": [], "permitted": []},
            "noNewPrivileges": True,
            "oomScoreAdj": max(_OOM_SCORE, facts.oom_score_floor),
        },
        "root": {"path": str(root), "readonly": True},
        "mounts": [
            spec.special("/proc", "proc", "nosuid", "noexec", "nodev"),
            spec.special("/dev", "tmpfs", "nosuid", "noexec", "mode=755", "size=64k"),
            # By a mount: where the root is, programs may not be run (/run is noexec).
            spec.bind(program, "/pause", "bind", "ro", "nosuid", "nodev"),
        ],
        "linux": linux,
        "annotations": {"run.oci.seccomp_bpf_data": filter.compiled} if filter.compiled else {},
    }
