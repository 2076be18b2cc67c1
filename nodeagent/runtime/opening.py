"""How a node comes to have a container runtime: what is there is detected, prepared, and tried.

Fails with RuntimeNotReady, in words that say what to install or what refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from nodeagent.runtime import crun, selftest
from nodeagent.runtime.allocation import spread
from nodeagent.runtime.cgroups import Cgroups
from nodeagent.runtime.containers import ContainerRuntime, Deadlines
from nodeagent.runtime.detection import RuntimeNotReady, facts, find_programs
from nodeagent.runtime.filters import DEFAULT_PROFILE, Filters
from nodeagent.runtime.images import ImageStore
from nodeagent.runtime.pod_cgroups import PodCgroups
from nodeagent.runtime.rootfs import Rootfs
from nodeagent.types import Resources

CONMON_CGROUP = "podplane/conmon"
_UNLIMITED = Resources()


async def open_runtime(
    *, state: Path, run: Path, runtime: str = "auto", images: ImageStore, hidden: Sequence[Path] = (),
    pids_limit: int = 4096, pods: Resources = _UNLIMITED, deadlines: Deadlines | None = None,
    conmon_cgroup: str = CONMON_CGROUP,
) -> ContainerRuntime:  # fmt: skip
    """Detect, prepare and try: raises RuntimeNotReady unless a container has run to its end.

    `hidden`: further paths of the node that no container of image "host" may see. `pids_limit`: of a pod; 0: none.
    `pods`: what all pods together may have; their cgroups are beside conmon's.
    """
    deadlines = deadlines or Deadlines()
    try:
        cgroups = await asyncio.to_thread(Cgroups.detect)
        programs = await find_programs(runtime, run, cgroups)
        rootfs = Rootfs(state, run, images.layers, hidden)
        pod_cgroups = PodCgroups(cgroups, conmon_cgroup.rpartition("/")[0])
        await asyncio.to_thread(_prepare, state, run, rootfs, cgroups, conmon_cgroup)
        await asyncio.to_thread(pod_cgroups.open, pods)
        version = f"crun {programs.version}" if programs.kind == "crun" else None
        filters = await asyncio.to_thread(Filters, state, version)
        node = await asyncio.to_thread(facts, cgroups, pids_limit, conmon_cgroup)
        sealed = await crun.sealed(programs.runtime) if programs.kind == "crun" else None
    except FileNotFoundError as error:
        raise RuntimeNotReady(_missing(error)) from error
    except OSError as error:
        raise RuntimeNotReady(f"cannot prepare the container runtime: {error}") from error
    made = ContainerRuntime(
        state=state, run=run, images=images, programs=programs, cgroups=cgroups, node=node, rootfs=rootfs,
        filters=filters, deadlines=deadlines, conmon_cgroup=conmon_cgroup, sealed=sealed, pod_cgroups=pod_cgroups,
    )  # fmt: skip
    try:
        await selftest.check(made, f"{conmon_cgroup}-selftest", deadlines.start)
        await asyncio.to_thread(made.remove_log, selftest.request(""))
    except BaseException:
        await made.close()
        raise
    return made


def _prepare(state: Path, run: Path, rootfs: Rootfs, cgroups: Cgroups, conmon_cgroup: str) -> None:
    for path in (state / "containers", state / "logs"):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        spread(path)
    for path in (run, run / "containers", run / "exits", run / "oci", run / "attach"):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    rootfs.open()
    cgroups.create(conmon_cgroup)


def _missing(error: FileNotFoundError) -> str:
    if error.filename == str(DEFAULT_PROFILE):
        return f"{DEFAULT_PROFILE} is missing: install the package golang-github-containers-common"
    return f"cannot prepare the container runtime: {error}"
