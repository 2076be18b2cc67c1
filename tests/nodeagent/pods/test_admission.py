"""What a node refuses before it makes anything: sysctls, host ports, resources; in the kubelet's words."""

from __future__ import annotations

from typing import Any

import pytest

from nodeagent.pods.admission import refusal
from nodeagent.pods.resources import Refusal
from nodeagent.sandbox.sysctls import pattern_problem
from podplane.v1.pod_pb2 import Pod, PodSpec

ROOM = {"cpu": "1", "pods": "3"}


def with_sysctl(name: str, **spec: Any) -> Pod:
    pod = Pod(spec=PodSpec(**spec))
    pod.spec.securityContext.sysctls.add(name=name, value="1")
    return pod


def with_port(number: int, protocol: str = "TCP", address: str = "", *, init: bool = False) -> Pod:
    pod = Pod()
    container = (pod.spec.initContainers if init else pod.spec.containers).add(name="a")
    container.ports.add(containerPort=80, hostPort=number, protocol=protocol, hostIP=address)
    return pod


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        (with_sysctl("kernel.msgmax"), 'forbidden sysctl: "kernel.msgmax" not allowlisted'),
        (with_sysctl("net.core.somaxconn"), 'forbidden sysctl: "net.core.somaxconn" not allowlisted'),
        (with_sysctl("vm.swappiness"), 'forbidden sysctl: "vm.swappiness" not allowlisted'),
        (with_sysctl("net/../vm/swappiness"), 'forbidden sysctl: "net/../vm/swappiness" not allowlisted'),
        (
            with_sysctl("net.ipv4.tcp_syncookies", hostNetwork=True),
            'forbidden sysctl: "net.ipv4.tcp_syncookies" not allowed with host net enabled',
        ),
        (
            with_sysctl("kernel.shm_rmid_forced", hostIPC=True),
            'forbidden sysctl: "kernel.shm_rmid_forced" not allowed with host ipc enabled',
        ),
    ],
)
def test_a_sysctl_that_is_not_the_pods_is_refused(pod: Pod, words: str) -> None:
    assert refusal(pod, [], ROOM, ()) == Refusal("SysctlForbidden", f"Pod was rejected: {words}")


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("net.ipv4.tcp_syncookies", ()),
        ("net/ipv4/tcp_syncookies", ()),
        ("kernel.msgmax", ("kernel.msg*",)),
        ("net.core.somaxconn", ("net.core.somaxconn",)),
        ("net/core/somaxconn", ("net.*",)),
    ],
)
def test_safe_sysctls_and_those_that_the_node_allows_are_taken(name: str, allowed: tuple[str, ...]) -> None:
    assert refusal(with_sysctl(name), [], ROOM, allowed) is None


def test_what_is_the_whole_nodes_cannot_be_allowed() -> None:
    assert pattern_problem("kernel.panic") is not None
    assert pattern_problem("vm.*") is not None
    assert pattern_problem("kernel.shm*") is None


@pytest.mark.parametrize(
    ("pod", "other", "free"),
    [
        (with_port(80), with_port(80), False),
        (with_port(80), with_port(80, init=True), False),
        (with_port(80), with_port(80, address="10.0.0.1"), False),
        (with_port(80, address="10.0.0.1"), with_port(80, address="10.0.0.1"), False),
        (with_port(80, address="10.0.0.1"), with_port(80, address="10.0.0.2"), True),
        (with_port(80), with_port(80, "UDP"), True),
        (with_port(80), with_port(81), True),
    ],
)
def test_a_host_port_is_held_by_one_pod_at_a_time(pod: Pod, other: Pod, free: bool) -> None:
    expected = None if free else Refusal("NodePorts", "Pod was rejected: Predicate NodePorts failed")
    assert refusal(pod, [other], ROOM, ()) == expected


def test_resources_are_asked_before_ports() -> None:
    pod, other = with_port(80), with_port(80)
    pod.spec.containers[0].resources.requests["cpu"] = "2"
    found = refusal(pod, [other], ROOM, ())
    assert found is not None
    assert found.reason == "OutOfcpu"
