"""What one pod uses now, for the choice of who goes. Blocks while it walks directories: call it in a thread."""

from __future__ import annotations

from pathlib import Path

from nodeagent.paths import Paths
from nodeagent.pods import requests
from nodeagent.pods.state import RUNNING, PodState
from nodeagent.pressure.ranking import ContainerUse, PodUse
from nodeagent.runtime.containers import ContainerRuntime
from nodeagent.runtime.logs import pod_directory
from nodeagent.runtime.usage import sample, tree_use


def measure(runtime: ContainerRuntime, paths: Paths, root: str, state: PodState, *, disk: bool) -> PodUse:
    """`root`: the node's cgroup. `disk`: also what it keeps there, which takes longest."""
    containers, size, files, volumes = [], 0, 0, {}
    logs = pod_directory(paths.state, state.pod.metadata.namespace, state.pod.metadata.name, state.uid)
    for container in state.containers:
        found = None
        if container.stage == RUNNING:
            found = sample(runtime.cgroups, requests.cgroup(root, state, container.name, container.attempt))
        id_ = f"{state.uid}_{container.name}_{container.attempt}"
        own, many = tree_use(runtime.scratch(id_), logs / container.name) if disk else (0, 0)
        size, files = size + own, files + many
        containers.append(ContainerUse(container.name, found.memory if found else 0, own))
    if disk:
        volumes = {path.name: tree_use(path) for path in _entries(paths.state / "volumes" / state.uid)}
        size += sum(own for own, _ in volumes.values())
        files += sum(many for _, many in volumes.values())
    whole = sample(runtime.cgroups, requests.pod_cgroup(root, state))
    return PodUse(
        pod=state.pod,
        memory=whole.memory if whole else 0,
        pids=whole.pids if whole else 0,
        disk=size,
        inodes=files,
        containers=tuple(containers),
        volumes={name: own for name, (own, _) in volumes.items()},
    )


def _entries(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []
