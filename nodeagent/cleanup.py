"""`podplane-nodeagent cleanup`: removes every trace of the agent from this machine.

Containers first, then sandboxes, volumes, network, rules, then both directories. Every step is tried, whatever became
of the one before; what could not be removed is named, and the exit status is 1. Refuses while an agent runs with these
directories, or with any in this network namespace: it would lose its rules.

Where both directories are gone already, what the kernel itself has goes: network, rules, cgroups. Which values the
kernel's settings had is not known then: those that an agent sets are named. Refuses while processes run in the cgroup,
whose agent may be in another network namespace or not running now.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence

from nodeagent.config import Config
from nodeagent.joining import CannotStart, lock, refuse_beside_agent
from nodeagent.paths import Paths
from nodeagent.pods.kept import read_specs
from nodeagent.proxy.ipvs import kernel as ipvs
from nodeagent.proxy.ipvs.plan import DEVICE
from nodeagent.proxy.mode import RulesRefused, RulesUnavailable
from nodeagent.proxy.sync import LOCALNET, ProxySync
from nodeagent.runtime.cgroups import Cgroups
from nodeagent.runtime.detection import RuntimeNotReady
from nodeagent.runtime.images import ImageStore
from nodeagent.runtime.opening import open_runtime
from nodeagent.runtime.pause import PauseProcesses
from nodeagent.runtime.volumes import VolumeFailure, Volumes
from nodeagent.sandbox import namespaces, sysctl
from nodeagent.sandbox.network import BRIDGE, FORWARDING, Network
from nodeagent.sandbox.sandboxes import Sandboxes, SandboxFailure
from nodeagent.types import RuntimeFailure

log = logging.getLogger(__name__)

AT_ONCE = 8
Step = Callable[[Config], Awaitable[None]]


async def clean(config: Config) -> None:
    """Remove everything. Raises CannotStart, naming what is left."""
    refuse_beside_agent()
    paths = config.paths
    if not paths.state.exists() and not paths.run.exists():
        await _clean_kernel(config)
        return
    paths.make()
    held = lock(paths.lock)
    try:
        await _take(STEPS, config)
    finally:
        os.close(held)
    paths.lock.unlink()
    namespaces.release_private(paths.run)
    for directory in (paths.run, paths.state):
        with contextlib.suppress(OSError):  # a mount point, or another program's: it is empty of ours
            directory.rmdir()


async def _take(steps: Sequence[tuple[str, Step]], config: Config) -> None:
    """Take every step. Raises CannotStart, naming what is left."""
    left: list[str] = []
    for name, step in steps:
        try:
            await step(config)
        except (RuntimeNotReady, RuntimeFailure, SandboxFailure, VolumeFailure, RulesRefused,
                RulesUnavailable, OSError) as error:  # fmt: skip
            log.error("cannot remove %s: %s", name, error)
            left.append(name)
    if left:
        raise CannotStart(f"left over: {', '.join(left)}; the log says why")


async def _clean_kernel(config: Config) -> None:
    paths = config.paths
    if running := Cgroups.detect().processes(config.cgroup_root):
        raise CannotStart(
            f"neither {paths.state} nor {paths.run} is there, but {len(running)} processes run in the cgroup "
            f"{config.cgroup_root}: name the directories of their agent (--state-dir, --run-dir), or end them"
        )
    changed = (*FORWARDING, LOCALNET) if sysctl.has_interface(BRIDGE) else ()
    changed += tuple(ipvs.SETTINGS) if sysctl.has_interface(DEVICE) else ()
    try:
        await _take(KERNEL_STEPS, config)
    finally:  # what is left does not make the settings better known
        if found := " ".join(f"{name}={sysctl.read(name)}" for name in changed if sysctl.exists(name)):
            log.warning("kernel settings stay, since it is not known what they were before the agent: %s", found)


async def _containers(config: Config) -> None:
    paths = config.paths
    images = ImageStore(paths.state, paths.run)
    runtime = await open_runtime(
        state=paths.state,
        run=paths.run,
        runtime=config.runtime,
        images=images,
        conmon_cgroup=f"{config.cgroup_root}/conmon",
    )
    try:
        await _all_of([found.id for found in await runtime.list()], runtime.remove)
    finally:
        await runtime.close()


async def _all_of(ids: Sequence[str], remove: Callable[[str], Awaitable[None]]) -> None:
    """Remove them, some at a time; raises the first failure once all were tried."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(id_: str) -> None:
        async with turns:
            await remove(id_)

    for outcome in await asyncio.gather(*map(one, ids), return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


async def _sandboxes(config: Config) -> None:
    network = await Network.open(config.paths.run)
    sandboxes = Sandboxes(config.paths.run, network, PauseProcesses(config.paths.run, Cgroups.detect(), None))
    for sandbox in await sandboxes.list():
        await sandboxes.remove(sandbox.pod_uid, sandbox.attempt)
    for uid, attempt in await sandboxes.half_made():
        await sandboxes.remove(uid, attempt)
    await network.cleanup()
    network.close()


async def _network(config: Config) -> None:
    network = await Network.open(config.paths.run)
    await network.cleanup()
    network.close()


async def _volumes(config: Config) -> None:
    volumes = Volumes(config.paths.state, config.paths.run)
    uids = set(read_specs(config.paths))
    for base in (config.paths.state, config.paths.run):
        if (base / "volumes").is_dir():
            uids.update(path.name for path in (base / "volumes").iterdir())
    for uid in uids:
        await volumes.remove(uid)


async def _rules(config: Config) -> None:
    await ProxySync(config.proxy_mode, config.paths.run).cleanup()


async def _cgroups(config: Config) -> None:
    if not Cgroups.detect().remove(config.cgroup_root):
        raise OSError(f"processes are still in the cgroup {config.cgroup_root}")


async def _directories(config: Config) -> None:
    for base in (config.paths.run, config.paths.state):
        _empty(config.paths, base)


def _empty(paths: Paths, base: os.PathLike[str]) -> None:
    for entry in os.scandir(base):
        if entry.path == str(paths.lock):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)


STEPS: tuple[tuple[str, Step], ...] = (
    ("containers", _containers),
    ("sandboxes and network", _sandboxes),
    ("volumes", _volumes),
    ("rules", _rules),
    ("cgroups", _cgroups),
    ("directories", _directories),
)
KERNEL_STEPS: tuple[tuple[str, Step], ...] = (("network", _network), ("rules", _rules), ("cgroups", _cgroups))
