"""The OCI runtime spec of a container: request, image and facts of the node in, config.json out. Pure.

Everything is decided here: namespaces, mounts, capabilities, devices, cgroup resources. Reads no file and no
environment; what it must know of the node is in Facts. Sources: OCI runtime-spec 1.0.2, kubelet's conversions of
cpu and memory, containerd's default spec.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nodeagent.runtime import capabilities, limits
from nodeagent.runtime.image import Image
from nodeagent.types import ContainerRequest, Mount, Resources, RuntimeFailure

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MASKED_PATHS = (
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
)  # fmt: skip
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_NOTHING_ALLOWED = {"defaultAction": "SCMP_ACT_ERRNO"}
_DEVICES = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2))


@dataclass(frozen=True, slots=True)
class Device:
    """A device node of the node, for privileged containers."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What the spec must know of the node."""

    cgroup_version: int
    capabilities: tuple[str, ...]
    """CAP_... names that the agent itself has."""
    oom_score_floor: int = -1000
    """The lowest oom_score_adj that may be set: without CAP_SYS_RESOURCE it can only be raised."""
    open_files: int = 1_048_576
    swap_limit: bool = False
    """Whether the kernel can limit swap (v2, or v1 with swap accounting)."""
    pids_limit: int = 4096
    """Processes and threads of a pod, and so of a container at the most; 0: no limit."""
    devices: tuple[Device, ...] = ()


@dataclass(frozen=True, slots=True)
class User:
    """Who the first process is, resolved to numbers."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


@dataclass(frozen=True, slots=True)
class Root:
    """The root filesystem: its directory, and the mounts that belong to it (hidden paths, separate system mounts)."""

    path: Path
    mounts: tuple[Mapping[str, Any], ...] = ()
    fresh: tuple[str, ...] = ()
    """Directories that get a tmpfs of their own."""


@dataclass(frozen=True, slots=True)
class Filter:
    """The seccomp filter: the OCI profile, and for crun the compiled program (base64) where one is known."""

    profile: Mapping[str, Any] | None = None
    compiled: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)


def arguments(request: ContainerRequest, image: Image) -> list[str]:
    """What runs: Kubernetes' four combinations of command, args, ENTRYPOINT and CMD."""
    if request.command:
        argv = [*request.command, *request.args]
    elif request.args:
        argv = [*image.entrypoint, *request.args]
    else:
        argv = [*image.entrypoint, *image.cmd]
    if not argv:
        raise RuntimeFailure("CreateContainerError", "no command specified")
    return argv


def working_directory(request: ContainerRequest, image: Image) -> str:
    """workingDir, or the image's. The runtimes make it where it is not there; only runc refuses a relative one."""
    place = request.working_dir or image.working_dir or "/"
    if not place.startswith("/"):
        raise RuntimeFailure("CreateContainerError", f"working directory {place!r} is not an absolute path")
    return place


def environment(request: ContainerRequest, image: Image, user: User) -> list[str]:
    """Defaults, then the image's variables, then the request's: the last one wins."""
    made = {"PATH": DEFAULT_PATH, "HOSTNAME": request.hostname, "HOME": user.home}
    if not request.hostname:
        del made["HOSTNAME"]
    if request.tty:
        made["TERM"] = "xterm"
    for item in image.env:
        name, _, value = item.partition("=")
        made[name] = value
    made.update(request.env)
    return [f"{name}={value}" for name, value in made.items()]


def resources(asked: Resources, facts: Facts, privileged: bool) -> dict[str, Any]:
    """OCI `linux.resources`, which both runtimes translate to the cgroup version they find."""
    cpu: dict[str, int] = {"shares": limits.shares(asked.cpu_request)}
    if asked.cpu_limit:
        cpu |= {"quota": limits.quota(asked.cpu_limit), "period": limits.CPU_PERIOD}
    made: dict[str, Any] = {"cpu": cpu, "devices": _device_rules(privileged)}
    if facts.pids_limit > 0:
        made["pids"] = {"limit": facts.pids_limit}
    if asked.memory_limit:
        made["memory"] = {"limit": asked.memory_limit}
        if facts.swap_limit:
            made["memory"]["swap"] = asked.memory_limit
    if facts.cgroup_version == 2:
        made["unified"] = {"memory.oom.group": "1"}
    return made


def _device_rules(privileged: bool) -> list[dict[str, Any]]:
    if privileged:
        return [{"allow": True, "access": "rwm"}]
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    rules += [{"allow": True, "type": kind, "access": "m"} for kind in "cb"]
    rules += [
        {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"} for major, minor in _DEVICES
    ]
    return [*rules, {"allow": True, "type": "c", "major": 136, "access": "rwm"}]


def special(destination: str, kind: str, *options: str, source: str | None = None) -> dict[str, Any]:
    """An OCI mount of one of the kernel's own filesystems."""
    return {"destination": destination, "type": kind, "source": source or kind, "options": list(options)}


def bind(source: Path | str, destination: str, *options: str) -> dict[str, Any]:
    """An OCI bind mount."""
    return {"destination": destination, "type": "bind", "source": str(source), "options": list(options)}


def _base_mounts(request: ContainerRequest) -> list[dict[str, Any]]:
    safe, writable = ("nosuid", "noexec", "nodev"), "rw" if request.security.privileged else "ro"
    box = request.sandbox
    return [
        special("/proc", "proc", *safe),
        special("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        special("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        bind(box.shm, "/dev/shm", "bind", "rw", *safe)
        if box.shm
        else special("/dev/shm", "tmpfs", *safe, "mode=1777", "size=65536k"),
        special("/dev/mqueue", "mqueue", *safe),  # the ipc namespace's
        special("/sys", "sysfs", *safe, writable),
        special("/sys/fs/cgroup", "cgroup", *safe, "relatime", writable),
    ]


def _fresh(path: str, request: ContainerRequest) -> dict[str, Any]:
    mode = "mode=1777" if path == "/tmp" else "mode=755"
    return special(path, "tmpfs", "nosuid", "nodev", mode, *(["ro"] if request.security.read_only_root else []))


def _asked(mount: Mount) -> dict[str, Any]:
    options = ["rbind" if mount.recursive else "bind", mount.propagation, "ro" if mount.read_only else "rw"]
    return bind(mount.source, mount.destination, *options)


def mounts(request: ContainerRequest, root: Root) -> list[dict[str, Any]]:
    """In mount order: what belongs to the root, the kernel's filesystems, then the asked for, parents first."""
    asked = sorted(request.mounts, key=lambda mount: mount.destination.rstrip("/").count("/"))
    return [
        *(dict(item) for item in root.mounts),
        *(_fresh(path, request) for path in root.fresh),
        *_base_mounts(request),
        *map(_asked, asked),
    ]


def _namespaces(request: ContainerRequest, facts: Facts) -> list[dict[str, str]]:
    box = request.sandbox
    made: list[dict[str, str]] = [{"type": "mount"}]
    if not request.host_pid and not box.pid:
        made.append({"type": "pid"})
    if facts.cgroup_version == 2:
        made.append({"type": "cgroup"})
    shared = {"network": box.net, "uts": box.uts, "ipc": box.ipc, "pid": box.pid}
    return made + [{"type": kind, "path": str(path)} for kind, path in shared.items() if path]


def _process(request: ContainerRequest, image: Image, user: User, facts: Facts) -> dict[str, Any]:
    asked = request.security
    caps = capabilities.granted(asked.add_capabilities, asked.drop_capabilities, asked.privileged, facts.capabilities)
    return {
        "terminal": request.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups), "umask": 0o22},
        "args": arguments(request, image),
        "env": environment(request, image, user),
        "cwd": working_directory(request, image),
        "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": facts.open_files, "hard": facts.open_files}],
        "noNewPrivileges": not (asked.allow_privilege_escalation or asked.privileged),
        "oomScoreAdj": max(request.oom_score_adj, facts.oom_score_floor),
    }


def exec_process(first: Mapping[str, Any], argv: Sequence[str], *, tty: bool) -> dict[str, Any]:
    """OCI `process` of another command in a container, from that of its first process."""
    env = list(first["env"])
    if tty and not any(item.startswith("TERM=") for item in env):
        env.append("TERM=xterm")
    return {**first, "args": list(argv), "terminal": tty, "env": env}


def _linux(request: ContainerRequest, facts: Facts, seccomp: Filter) -> dict[str, Any]:
    asked = request.security
    made: dict[str, Any] = {
        "namespaces": _namespaces(request, facts),
        "cgroupsPath": "/" + request.cgroup,
        "resources": resources(request.resources, facts, asked.privileged),
    }
    if asked.privileged:
        made["devices"] = [_device(device) for device in facts.devices]
    elif not asked.unmasked_proc:
        made |= {"maskedPaths": list(MASKED_PATHS), "readonlyPaths": list(READONLY_PATHS)}
    wanted = {mount.propagation for mount in request.mounts} & {"rshared", "rslave"}
    if wanted:
        # Else the runtimes cut the root off from the node before they mount anything.
        made["rootfsPropagation"] = min(wanted, key=("rshared", "rslave").index)
    if seccomp.profile is not None and not asked.privileged:
        # crun takes the program in the profile's place. A runtime that did not would let nothing run at all.
        made["seccomp"] = _NOTHING_ALLOWED if seccomp.compiled else dict(seccomp.profile)
    return made


def _device(device: Device) -> dict[str, Any]:
    return {"path": device.path, "type": device.kind, "major": device.major, "minor": device.minor,
            "fileMode": device.mode & 0o777, "uid": 0, "gid": 0}  # fmt: skip


def _annotations(request: ContainerRequest, seccomp: Filter) -> dict[str, str]:
    made = {
        "podplane.io/pod-uid": request.pod_uid,
        "podplane.io/container": request.name,
        "podplane.io/attempt": str(request.attempt),
    }
    if seccomp.compiled and not request.security.privileged:
        made["run.oci.seccomp_bpf_data"] = seccomp.compiled
    return made


def oci_spec(
    request: ContainerRequest, image: Image, root: Root, user: User, facts: Facts, seccomp: Filter
) -> dict[str, Any]:
    """The whole config.json. Raises RuntimeFailure where nothing can be run (no command)."""
    return {
        "ociVersion": "1.0.2",
        "process": _process(request, image, user, facts),
        "root": {"path": str(root.path), "readonly": request.security.read_only_root},
        "mounts": mounts(request, root),
        "linux": _linux(request, facts, seccomp),
        "annotations": _annotations(request, seccomp),
    }


def capability_names(request: ContainerRequest, facts: Facts) -> Sequence[str]:
    """The container's capabilities: the seccomp profile depends on them."""
    asked = request.security
    return capabilities.granted(asked.add_capabilities, asked.drop_capabilities, asked.privileged, facts.capabilities)
