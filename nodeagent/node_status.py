"""The Node object as this agent reports it: what the machine has, is called, runs, and suffers from.

Reads /proc, /etc and the state directory's filesystem; decides conditions purely (`conditions`). Sources: Kubernetes'
NodeStatus; the reservations and thresholds are the kubelet's defaults where it has some.
"""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from podplane import quantity
from podplane.v1.node_pb2 import Node, NodeStatus

PODS = 110
RESERVED_CPU = 50
"""Millicores kept for the system and the agent."""
RESERVED_MEMORY = 100 * 1024 * 1024
EVICTION_MEMORY = 100 * 1024 * 1024
"""Bytes available below which there is memory pressure (the kubelet's memory.available<100Mi)."""
EVICTION_DISK = 0.10
"""Share of the state directory's filesystem (the kubelet's nodefs.available<10%)."""
EVICTION_INODES = 0.05
EVICTION_PIDS = 0.05


@dataclass(frozen=True, slots=True)
class Machine:
    """What does not change while the agent runs."""

    name: str
    ip: str
    cpus: int
    memory: int
    disk: int
    boot_id: str

    @property
    def capacity(self) -> dict[str, str]:
        return {
            "cpu": str(self.cpus),
            "memory": quantity.of_value(self.memory // 1024 * 1024, binary=True),
            "pods": str(PODS),
            "ephemeral-storage": quantity.of_value(self.disk // 1024 * 1024, binary=True),
        }

    @property
    def allocatable(self) -> dict[str, str]:
        memory = max(0, self.memory - RESERVED_MEMORY - EVICTION_MEMORY)
        return {
            "cpu": quantity.of_milli(max(0, self.cpus * 1000 - RESERVED_CPU)),
            "memory": quantity.of_value(memory // 1024 * 1024, binary=True),
            "pods": str(PODS),
            "ephemeral-storage": quantity.of_value(int(self.disk * (1 - EVICTION_DISK)) // 1024 * 1024, binary=True),
        }


@dataclass(frozen=True, slots=True)
class Pressure:
    """What is left, of what: bytes, inodes, process ids."""

    memory_available: int
    disk_free: int
    disk_size: int
    inodes_free: int
    inodes: int
    pids: int
    pids_max: int


def boot_id() -> str:
    """The kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def default_ip() -> str:
    """The source address of the default route; "" where there is none. Sends nothing: connect on UDP only routes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        address: str = probe.getsockname()[0]
        return address


def machine(name: str, node_ip: str, state: Path) -> Machine:
    """This machine. `state`: the directory whose filesystem is the node's ephemeral storage."""
    disk = os.statvfs(state)
    return Machine(
        name=name,
        ip=node_ip or default_ip(),
        cpus=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        disk=disk.f_blocks * disk.f_frsize,
        boot_id=boot_id(),
    )


def pressure(state: Path) -> Pressure:
    """What is left now."""
    disk = os.statvfs(state)
    memory = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    running = Path("/proc/loadavg").read_text().split()[3].partition("/")[2]
    return Pressure(
        memory_available=int(memory["MemAvailable"].split()[0]) * 1024,
        disk_free=disk.f_bavail * disk.f_frsize,
        disk_size=disk.f_blocks * disk.f_frsize,
        inodes_free=disk.f_favail,
        inodes=disk.f_files,
        pids=int(running),
        pids_max=int(Path("/proc/sys/kernel/pid_max").read_text()),
    )


def conditions(
    left: Pressure, runtime: str | None, network: str | None, disk_problem: str = ""
) -> Iterator[tuple[str, str, str, str]]:
    """(type, status, reason, message). runtime, network: why each is not ready; None where it is. Pure.

    disk_problem: why the state directory takes no writes, whatever its filesystem's numbers say (a quota).
    """
    memory = left.memory_available < EVICTION_MEMORY
    yield _pressure("MemoryPressure", memory, "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory", "memory")
    disk = left.disk_free < EVICTION_DISK * left.disk_size or left.inodes_free < EVICTION_INODES * left.inodes
    disk = disk or bool(disk_problem)
    yield _pressure("DiskPressure", disk, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure", "disk")
    pids = left.pids_max - left.pids < EVICTION_PIDS * left.pids_max
    yield _pressure("PIDPressure", pids, "KubeletHasInsufficientPID", "KubeletHasSufficientPID", "PID")
    if runtime is not None:
        yield "Ready", "False", "ContainerRuntimeNotReady", runtime
    elif network is not None:
        yield "Ready", "False", "NetworkPluginNotReady", network
    else:
        yield "Ready", "True", "AgentReady", "the agent is ready to run pods"


def _pressure(type_: str, is_on: bool, on: str, off: str, what: str) -> tuple[str, str, str, str]:
    if is_on:
        return type_, "True", on.replace("Kubelet", "Agent"), f"the node is short of {what}"
    return type_, "False", off.replace("Kubelet", "Agent"), f"the node has enough {what}"


def node(
    this: Machine,
    runtime_version: str,
    now: float,
    found: Iterable[tuple[str, str, str, str]],
    since: dict[str, tuple[str, float]],
) -> Node:
    """The object. `since` is kept from one report to the next: condition -> its status and when it took it."""
    made = Node(apiVersion="v1", kind="Node")
    made.metadata.name = this.name
    status = made.status
    status.capacity.update(this.capacity)
    status.allocatable.update(this.allocatable)
    if this.ip:
        status.addresses.add(type="InternalIP", address=this.ip)
    status.addresses.add(type="Hostname", address=this.name)
    _info(status, this, runtime_version)
    for type_, value, reason, message in found:
        if since.get(type_, ("", 0.0))[0] != value:
            since[type_] = (value, now)
        status.conditions.add(
            type=type_,
            status=value,
            reason=reason,
            message=message,
            lastHeartbeatTime=Timestamp(seconds=int(now)),
            lastTransitionTime=Timestamp(seconds=int(since[type_][1])),
        )
    return made


def _info(status: NodeStatus, this: Machine, runtime_version: str) -> None:
    info = status.nodeInfo
    info.machineID = _first_line("/etc/machine-id")
    info.systemUUID = _first_line("/sys/class/dmi/id/product_uuid") or info.machineID
    info.bootID = this.boot_id
    info.kernelVersion = platform.release()
    info.osImage = _os_image()
    info.containerRuntimeVersion = runtime_version
    info.kubeletVersion = info.kubeProxyVersion = version()
    info.operatingSystem = "linux"
    info.architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def version() -> str:
    """This agent's version, as Kubernetes writes versions."""
    return f"v{metadata.version('podplane')}"


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().partition("\n")[0].strip()
    except OSError:
        return ""


def _os_image() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"
