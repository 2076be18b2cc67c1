"""Whether this node takes a pod, before anything is made for it: sysctls, resources, host ports. Pure.

The scheduler has asked most of it already; a pod that names its node, or is bound by another, has passed nobody yet.
Reasons and words are the kubelet's: they become status.reason and status.message of a pod that has Failed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from nodeagent.pods.resources import Refusal, admit
from nodeagent.sandbox.sysctls import refusal as sysctl_refusal
from podplane.v1.pod_pb2 import Pod

ANY_ADDRESS = "0.0.0.0"
HostPort = tuple[str, int, str]
"""protocol, port, address."""


def refusal(
    pod: Pod, others: Iterable[Pod], allocatable: Mapping[str, str], unsafe_sysctls: Collection[str]
) -> Refusal | None:
    """None where the node takes `pod` beside `others` (those that are not finished)."""
    others = list(others)
    return _sysctls(pod, unsafe_sysctls) or admit(pod, others, allocatable) or _ports(pod, others)


def _sysctls(pod: Pod, unsafe: Collection[str]) -> Refusal | None:
    spec = pod.spec
    for sysctl in spec.securityContext.sysctls:
        if reason := sysctl_refusal(sysctl.name, spec.hostNetwork, spec.hostIPC, unsafe):
            return Refusal("SysctlForbidden", f"Pod was rejected: {reason}")
    return None


def _ports(pod: Pod, others: Iterable[Pod]) -> Refusal | None:
    wanted = set(host_ports(pod))
    if not wanted:
        return None
    held = {port for other in others for port in host_ports(other)}
    if any(_overlap(one, other) for one in wanted for other in held):
        return Refusal("NodePorts", "Pod was rejected: Predicate NodePorts failed")
    return None


def host_ports(pod: Pod) -> Iterator[HostPort]:
    """The ports of its node that a pod holds."""
    for container in (*pod.spec.initContainers, *pod.spec.containers):
        for port in container.ports:
            if port.hostPort:
                yield port.protocol or "TCP", port.hostPort, port.hostIP or ANY_ADDRESS


def _overlap(one: HostPort, other: HostPort) -> bool:
    return one[:2] == other[:2] and (one[2] == other[2] or ANY_ADDRESS in (one[2], other[2]))
