"""The volumes of pods: directories of the node that containers mount.

Owns state/volumes/<uid>/<name> (emptyDir on disk, configMap), run/volumes/<uid>/<name>, each a tmpfs of its own
(secret, downwardAPI, projected, emptyDir in memory): no secret byte reaches a disk; and what nfs.py mounts. prepare()
and remove() may be done again at any time; what is there is kept, with the owner and mode that a container gave it.
The fsGroup owns all of them, not host paths nor NFS. Fails with VolumeFailure, whose message names volume, object and
key as the kubelet does; other sources are refused by name. What looks at a path that may hang does so apart.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from nodeagent import syscalls
from nodeagent.runtime import atomicdir, payload
from nodeagent.runtime.apart import IsGivenUp, apart
from nodeagent.runtime.fields import PodFacts
from nodeagent.runtime.hostpath import HostPaths
from nodeagent.runtime.nfs import NfsMounts
from nodeagent.runtime.payload import Objects
from nodeagent.runtime.rootfs import remove_tree
from nodeagent.runtime.subpaths import SubPaths
from nodeagent.sandbox import namespaces
from podplane import quantity
from podplane.v1.pod_pb2 import Pod
from podplane.v1.volume_pb2 import EmptyDirVolumeSource, Volume

DAEMON_DIRECTORIES = (Path("/var/lib/podplane"), Path("/etc/podplane"), Path("/run/podplane"))
_PAYLOAD_SIZE = 256 << 20
"""Bytes: a bound for a mistake of ours. No container writes there, and an update holds the old and the new set."""


class VolumeFailure(Exception):
    """A volume cannot be had. `reason` is the event that people see (FailedMount)."""

    def __init__(self, message: str, reason: str = "FailedMount") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Volumes:
    """Makes, updates and removes volumes. `facts`: what downward API volumes may say of this node."""

    def __init__(
        self, state: Path, run: Path, *, host_path_allow: Sequence[Path] = (), refused: Sequence[Path] = (),
        facts: PodFacts | None = None,
    ) -> None:  # fmt: skip
        self._disk, self._memory = state / "volumes", run / "volumes"
        self._subpaths = SubPaths(run)
        self._nfs = NfsMounts(run)
        self._hosts = HostPaths(host_path_allow, (*DAEMON_DIRECTORIES, state, run, *refused))
        self._facts = facts or PodFacts("", "", "")

    async def prepare(self, pod: Pod, objects: Objects) -> Mapping[str, Path]:
        """Make every volume; returns where each is. objects: (kind, namespace, name). Raises VolumeFailure."""
        if not pod.spec.volumes:
            return {}
        uid = pod.metadata.uid
        made = dict(await apart(lambda given_up: self._each(pod, objects, given_up), f"volumes-{uid[:8]}"))
        for volume in pod.spec.volumes:
            if volume.HasField("nfs"):
                made[volume.name] = await self._mount_nfs(uid, volume)
        return made

    async def _mount_nfs(self, uid: str, volume: Volume) -> Path:
        try:
            return await self._nfs.mount(uid, volume.name, volume.nfs)
        except OSError as error:
            raise VolumeFailure(f'MountVolume.SetUp failed for volume "{volume.name}" : {error}') from error

    async def update(self, pod: Pod, objects: Objects) -> None:
        """Bring changed objects into the files, each volume at once. One that fails keeps its files."""
        if not any(map(payload.is_payload, pod.spec.volumes)):
            return
        failures = await asyncio.to_thread(self._update, pod, objects)
        if failures:
            raise failures[0]

    async def remove(self, pod_uid: str) -> None:
        """Remove the pod's volumes, unmounting first; host paths stay. Idempotent. Raises VolumeFailure."""
        try:
            await asyncio.to_thread(self._subpaths.remove, pod_uid)
            await self._nfs.remove(pod_uid)
            await asyncio.to_thread(self._remove, pod_uid)
        except OSError as error:
            raise VolumeFailure(f"cannot remove the volumes of pod {pod_uid}: {error}") from error

    async def subpath(self, pod_uid: str, container: str, index: int, volume: Path, sub_path: str) -> Path:
        """Pin a path below a volume (a missing one becomes a directory) and return where; Raises VolumeFailure.

        What is pinned is the file or directory itself: a symlink swapped in later changes nothing.
        """
        try:
            return await apart(
                lambda _given_up: self._subpaths.pin(pod_uid, container, index, volume, sub_path),
                f"subpath-{pod_uid[:8]}",
            )
        except (OSError, ValueError) as error:
            raise VolumeFailure(f'failed to prepare subPath for volumeMount "{sub_path}" of container '
                                f'"{container}": {error}', "CreateContainerConfigError") from error  # fmt: skip

    async def check_propagation(self, volume: Path, wanted: str) -> None:
        """Mounts must be able to propagate from or to a volume where a container wants it; Raises VolumeFailure."""
        if wanted not in ("HostToContainer", "Bidirectional"):
            return
        mount = await apart(lambda _given_up: namespaces.mount_of(volume), "propagation")
        if not (mount.shared or (mount.slave and wanted == "HostToContainer")):
            needed = "shared mount" if wanted == "Bidirectional" else "shared or slave mount"
            words = f'path "{volume}" is mounted on "{mount.point}" but it is not a {needed}'
            raise VolumeFailure(words, "CreateContainerError")

    # ── each volume ──────────────────────────────────────────────────────────────────────────────────────────

    def _each(self, pod: Pod, objects: Objects, is_given_up: IsGivenUp) -> Mapping[str, Path]:
        made = {}
        for volume in pod.spec.volumes:
            if is_given_up():
                break
            if not volume.HasField("nfs"):
                made[volume.name] = self._named(pod, volume, objects)
        return made

    def _named(self, pod: Pod, volume: Volume, objects: Objects) -> Path:
        try:
            return self._one(pod, volume, objects)
        except (OSError, ValueError) as error:
            raise VolumeFailure(f'MountVolume.SetUp failed for volume "{volume.name}" : {error}') from error

    def _one(self, pod: Pod, volume: Volume, objects: Objects) -> Path:
        uid, group = pod.metadata.uid, _group(pod)
        files = payload.of_volume(pod, volume, objects, self._facts)
        if files is not None:
            if volume.HasField("configMap"):
                target = _directory(self._disk / uid / volume.name, 0o755, group)
            else:
                target = _tmpfs(self._memory / uid / volume.name, _PAYLOAD_SIZE, 0o755, group)
            atomicdir.write(target, files, group)
            return target
        if volume.HasField("hostPath"):
            return self._hosts.prepare(volume.hostPath.path, volume.hostPath.type)
        if volume.HasField("emptyDir") or not volume.ListFields()[1:]:
            return self._empty_dir(pod, volume.name, volume.emptyDir)
        source = volume.ListFields()[-1][0].name
        raise ValueError(f"volume source {source} is not supported")

    def _empty_dir(self, pod: Pod, name: str, asked: EmptyDirVolumeSource) -> Path:
        uid, group = pod.metadata.uid, _group(pod)
        if asked.medium == "Memory":
            size = memory_size(pod, asked, self._facts.allocatable.get("memory", ""))
            return _tmpfs(self._memory / uid / name, size, 0o777, group)
        if asked.medium:
            raise ValueError(f"emptyDir medium {asked.medium} is not supported")
        return _directory(self._disk / uid / name, 0o777, group)

    def _update(self, pod: Pod, objects: Objects) -> Sequence[VolumeFailure]:
        failures = []
        for volume in pod.spec.volumes:
            if payload.is_payload(volume):
                try:
                    self._named(pod, volume, objects)
                except VolumeFailure as failure:
                    failures.append(failure)
        return failures

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────

    def _remove(self, uid: str) -> None:
        for path in (self._memory / uid).glob("*"):
            syscalls.unmount(path)
        remove_tree(self._memory / uid)
        remove_tree(self._disk / uid)


def memory_size(pod: Pod, asked: EmptyDirVolumeSource, allocatable: str) -> int:
    """Bytes that an emptyDir in memory may hold; 0: the kernel's default, half of the machine's. Pure.

    The least of the volume's sizeLimit, the containers' memory limits where each has one, and what the node has to
    give, as the kubelet's SizeMemoryBackedVolumes.
    """
    limits = [container.resources.limits.get("memory", "") for container in pod.spec.containers]
    bounds = [quantity.value(text) for text in (asked.sizeLimit, allocatable) if text]
    if limits and all(limits):
        bounds.append(sum(quantity.value(text) for text in limits))
    return min((bound for bound in bounds if bound > 0), default=0)


def _group(pod: Pod) -> int | None:
    context = pod.spec.securityContext
    return context.fsGroup if context.HasField("fsGroup") else None


def _directory(path: Path, mode: int, group: int | None) -> Path:
    """Make a directory with this mode, with a group also setgid; one that is there keeps what it has."""
    if path.is_dir():
        return path
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Complete before it has its name (no volume's begins with a dot): a crash in between must not leave it half made.
    fresh = path.with_name(f".{path.name}")
    fresh.mkdir(exist_ok=True)
    if group is not None:
        os.chown(fresh, -1, group)
    fresh.chmod(mode if group is None else mode | 0o2000)
    return fresh.rename(path)


def _tmpfs(path: Path, size: int, mode: int, group: int | None) -> Path:
    _directory(path, 0o700, None)
    if not os.path.ismount(path):
        owner = f"mode={mode:o}" if group is None else f"mode={mode | 0o2000:o},gid={group}"
        options = owner + (f",size={size}" if size else "")
        syscalls.mount("tmpfs", path, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, options)
    return path
