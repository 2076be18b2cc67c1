"""The volumes of pods: directories of the node that containers mount.

Owns state/volumes/<uid>/<name> (emptyDir on disk, configMap) and run/volumes/<uid>/<name>, each a tmpfs of its own
(secrets, projected, emptyDir in memory): no secret byte reaches a disk. prepare() and remove() may be done again at
any time; what is there is kept. Fails with VolumeFailure, whose message names volume, object and key as the kubelet
does. Sources that are not supported are refused by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from nodeagent import syscalls
from nodeagent.runtime import atomicdir, payload
from nodeagent.runtime.beneath import directory, open_beneath
from nodeagent.runtime.fields import PodFacts
from nodeagent.runtime.hostpath import HostPaths
from nodeagent.runtime.payload import Objects
from nodeagent.runtime.rootfs import remove_tree
from podplane import quantity
from podplane.v1.pod_pb2 import Pod
from podplane.v1.volume_pb2 import EmptyDirVolumeSource, Volume

DAEMON_DIRECTORIES = (Path("/var/lib/podplane"), Path("/etc/podplane"), Path("/run/podplane"))
_SECRET_SIZE = "16m"


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
        self._subpaths = run / "subpaths"
        self._hosts = HostPaths(host_path_allow, (*DAEMON_DIRECTORIES, state, run, *refused))
        self._facts = facts or PodFacts("", "", "")

    async def prepare(self, pod: Pod, objects: Objects) -> Mapping[str, Path]:
        """Make every volume; returns where each is. objects: (kind, namespace, name). Raises VolumeFailure."""
        return await asyncio.to_thread(self._each, pod, objects)

    async def update(self, pod: Pod, objects: Objects) -> None:
        """Bring changed objects into the files, each volume at once. One that fails keeps its files."""
        failures = await asyncio.to_thread(self._update, pod, objects)
        if failures:
            raise failures[0]

    async def remove(self, pod_uid: str) -> None:
        """Remove the pod's volumes, unmounting first; host paths stay. Idempotent. Raises VolumeFailure."""
        try:
            await asyncio.to_thread(self._remove, pod_uid)
        except OSError as error:
            raise VolumeFailure(f"cannot remove the volumes of pod {pod_uid}: {error}") from error

    async def subpath(self, pod_uid: str, container: str, index: int, volume: Path, sub_path: str) -> Path:
        """Pin a path below a volume (a missing one becomes a directory) and return where; Raises VolumeFailure.

        What is pinned is the file or directory itself: a symlink swapped in later changes nothing.
        """
        try:
            return await asyncio.to_thread(self._pin, pod_uid, container, index, volume, sub_path)
        except (OSError, ValueError) as error:
            raise VolumeFailure(f'failed to prepare subPath for volumeMount "{sub_path}" of container '
                                f'"{container}": {error}', "CreateContainerConfigError") from error  # fmt: skip

    # ── each volume ──────────────────────────────────────────────────────────────────────────────────────────

    def _each(self, pod: Pod, objects: Objects) -> Mapping[str, Path]:
        return {volume.name: self._named(pod, volume, objects) for volume in pod.spec.volumes}

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
                target = _made(self._disk / uid / volume.name)
            else:
                target = _tmpfs(self._memory / uid / volume.name, _SECRET_SIZE, 0o755)
            atomicdir.write(target, files, group)
            return target
        if volume.HasField("hostPath"):
            return self._hosts.prepare(volume.hostPath.path, volume.hostPath.type)
        if volume.HasField("emptyDir") or not volume.ListFields()[1:]:
            return self._empty_dir(uid, volume.name, volume.emptyDir, group)
        source = volume.ListFields()[-1][0].name
        raise ValueError(f"volume source {source} is not supported")

    def _empty_dir(self, uid: str, name: str, asked: EmptyDirVolumeSource, group: int | None) -> Path:
        if asked.medium == "Memory":
            size = str(quantity.value(asked.sizeLimit)) if asked.sizeLimit else ""
            target = _tmpfs(self._memory / uid / name, size, 0o777)
        elif asked.medium == "":
            target = _made(self._disk / uid / name)
            target.chmod(0o777)
        else:
            raise ValueError(f"emptyDir medium {asked.medium} is not supported")
        if group is not None:
            os.chown(target, -1, group)
            target.chmod(0o2777)
        return target

    def _update(self, pod: Pod, objects: Objects) -> Sequence[VolumeFailure]:
        failures = []
        for volume in pod.spec.volumes:
            if any(volume.HasField(kind) for kind in ("configMap", "secret", "projected", "downwardAPI")):
                try:
                    self._named(pod, volume, objects)
                except VolumeFailure as failure:
                    failures.append(failure)
        return failures

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────

    def _remove(self, uid: str) -> None:
        for base in (self._subpaths, self._memory):
            for path in sorted((base / uid).glob("**/*" if base == self._subpaths else "*"), reverse=True):
                _unmount(path)
            remove_tree(base / uid)
        remove_tree(self._disk / uid)

    def _pin(self, uid: str, container: str, index: int, volume: Path, sub_path: str) -> Path:
        payload.check_path(sub_path)
        target = self._subpaths / uid / container / str(index)
        with directory(volume) as root, contextlib.ExitStack() as stack:
            fd = _open_or_make(root, sub_path)
            stack.callback(os.close, fd)
            _unmount(target)
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            source = Path(f"/proc/self/fd/{fd}")
            if source.is_dir():
                target.mkdir(exist_ok=True)
            else:
                target.touch()
            syscalls.mount(source, target, None, syscalls.MS_BIND)
        return target


def _group(pod: Pod) -> int | None:
    context = pod.spec.securityContext
    return context.fsGroup if context.HasField("fsGroup") else None


def _made(path: Path) -> Path:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.mkdir(mode=0o755, exist_ok=True)
    return path


def _tmpfs(path: Path, size: str, mode: int) -> Path:
    _made(path)
    if not os.path.ismount(path):
        options = f"mode={mode:o}" + (f",size={size}" if size else "")
        syscalls.mount("tmpfs", path, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, options)
    return path


def _unmount(path: Path) -> None:
    while True:
        try:
            syscalls.umount2(path, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return
            raise


def _open_or_make(root: int, path: str) -> int:
    """A descriptor of a path below root; directories that are missing are made on the way."""
    try:
        return open_beneath(root, path, os.O_PATH)
    except FileNotFoundError:
        at = ""
        for part in path.split("/"):
            parent = open_beneath(root, at or ".", os.O_PATH | os.O_DIRECTORY)
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=parent)
            os.close(parent)
            at = f"{at}/{part}".lstrip("/")
        return open_beneath(root, path, os.O_PATH)
