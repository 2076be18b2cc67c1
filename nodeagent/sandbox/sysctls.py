"""Which kernel settings a pod may have ("Using sysctls in a Kubernetes Cluster"). Pure.

Only those that the kernel keeps for each network or ipc namespace: a pod that shares the node's must not set them. The
safe ones are for every pod; of the others, those that the node's administrator allows.
"""

from __future__ import annotations

from collections.abc import Collection

SAFE = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
_IPC = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")
_NET = ("net.",)


def canonical(name: str) -> str:
    """With dots between its parts: `net/ipv4/conf/eth0.1/forwarding` is the other spelling (sysctl.d(5))."""
    first = next((letter for letter in name if letter in "./"), ".")
    return name.translate({ord("/"): ".", ord("."): "/"}) if first == "/" else name


def pattern_problem(pattern: str) -> str | None:
    """Why a name, or a beginning of names that ends with *, cannot be allowed; None where it can."""
    known = canonical(pattern).removesuffix("*")
    if not known.startswith((*_IPC, *_NET)):
        return (
            f"{pattern} is not known to be kept for each pod (kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.*, net.*)"
        )
    return None


def refusal(name: str, host_network: bool, host_ipc: bool, unsafe: Collection[str]) -> str | None:
    """Say why a pod may not set this one; None where it may. unsafe: patterns that the node allows."""
    dotted = canonical(name)
    if dotted not in SAFE and not any(_matches(dotted, canonical(pattern)) for pattern in unsafe):
        return f'forbidden sysctl: "{name}" not allowlisted'
    return shared(name, host_network, host_ipc)


def shared(name: str, host_network: bool, host_ipc: bool) -> str | None:
    """Say why setting it would change the node itself; None where it is the pod's own."""
    dotted = canonical(name)
    if ".." in dotted or "//" in dotted or not dotted.startswith((*_IPC, *_NET)):
        return f'forbidden sysctl: "{name}" not allowlisted'
    if host_network and dotted.startswith(_NET):
        return f'forbidden sysctl: "{name}" not allowed with host net enabled'
    if host_ipc and dotted.startswith(_IPC):
        return f'forbidden sysctl: "{name}" not allowed with host ipc enabled'
    return None


def _matches(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
