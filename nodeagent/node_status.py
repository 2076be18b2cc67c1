"""The Node object as this agent reports it: what the machine has, is called, runs, and suffers from.

Reads /proc, /etc and the state directory's filesystem; decides conditions purely (`conditions`). Source: Kubernetes'
NodeStatus. What the node is short of, and what it keeps for itself, is nodeagent/pressure.
"""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nodeagent.pressure.signals import process_ids
from nodeagent.pressure.thresholds import Reservation, Threshold, allocatable
from nodeagent.runtime.image import Held
from nodeagent.runtime.manifests import ARCHITECTURES
from podplane import __version__, quantity
from podplane.times import stamp
from podplane.v1.node_pb2 import Node, NodeStatus

PODS = 110
MAX_IMAGES = 50
MAX_IMAGE_NAMES = 5
"""How many images a node lists, the largest first, and how many names of each (the kubelet's)."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What does not change while the agent runs."""

    name: str
    ip: str
    cpus: int
    memory: int
    disk: int
    pids: int
    boot_id: str
    allocatable: Mapping[str, str]
    """What pods may have of the capacity."""

    @property
    def capacity(self) -> dict[str, str]:
        return {
            "cpu": str(self.cpus),
            "memory": quantity.of_value(self.memory // 1024 * 1024, binary=True),
            "pods": str(PODS),
            "ephemeral-storage": quantity.of_value(self.disk // 1024 * 1024, binary=True),
        }


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


def machine(name: str, node_ip: str, state: Path, reserved: Reservation, thresholds: Iterable[Threshold]) -> Machine:
    """This machine. `state`: the directory whose filesystem is the node's ephemeral storage."""
    filesystem = os.statvfs(state)
    cpus, disk = len(os.sched_getaffinity(0)), filesystem.f_blocks * filesystem.f_frsize
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        name=name,
        ip=node_ip or default_ip(),
        cpus=cpus,
        memory=memory,
        disk=disk,
        pids=process_ids(),
        boot_id=boot_id(),
        allocatable=allocatable(cpus, memory, disk, PODS, reserved, thresholds),
    )


def conditions(
    short: Collection[str], runtime: str | None, network: str | None, remark: str = ""
) -> Iterator[tuple[str, str, str, str]]:
    """(type, status, reason, message). runtime, network: why each is not ready; None where it is. Pure.

    short: the pressure conditions that are True. remark: what the node does less well than others.
    """
    for type_, what, suffix in (("MemoryPressure", "memory", "Memory"), ("PIDPressure", "PID", "PID")):
        is_on = type_ in short
        reason = f"AgentHas{'Insufficient' if is_on else 'Sufficient'}{suffix}"
        yield type_, str(is_on), reason, f"the node {'is short of' if is_on else 'has enough'} {what}"
    disk = "DiskPressure" in short
    reason = "AgentHasDiskPressure" if disk else "AgentHasNoDiskPressure"
    yield "DiskPressure", str(disk), reason, f"the node {'is short of' if disk else 'has enough'} disk"
    if runtime is not None:
        yield "Ready", "False", "ContainerRuntimeNotReady", runtime
    elif network is not None:
        yield "Ready", "False", "NetworkPluginNotReady", network
    else:
        yield "Ready", "True", "AgentReady", "; ".join(filter(None, ("the agent is ready to run pods", remark)))


def node(
    this: Machine,
    runtime_version: str,
    now: float,
    found: Iterable[tuple[str, str, str, str]],
    since: dict[str, tuple[str, float]],
    images: Sequence[Held] = (),
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
            lastHeartbeatTime=stamp(now),
            lastTransitionTime=stamp(since[type_][1]),
        )
    for held in sorted(images, key=lambda one: (-one.size, one.names))[:MAX_IMAGES]:
        status.images.add(names=held.names[:MAX_IMAGE_NAMES], sizeBytes=min(held.size, 0xFFFFFFFF))
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
    info.architecture = ARCHITECTURES.get(platform.machine(), platform.machine())


def version() -> str:
    """This agent's version, as Kubernetes writes versions."""
    return f"v{__version__}"


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
