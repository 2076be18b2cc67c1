"""Kernel settings: those of the calling thread's namespaces by name, and which of them a pod may set."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

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
"""Kubernetes' safe sysctls: they are namespaced and bound to the pod ("Using sysctls in a Kubernetes Cluster")."""


_INTERFACES = Path("/proc/sys/net/ipv4/conf")


def _path(name: str) -> Path:
    """A dot in the name of an interface is written as a slash, as sysctl(8) has it."""
    return Path("/proc/sys", *(part.replace("/", ".") for part in name.split(".")))


def forwarding() -> list[str]:
    """net.ipv4.ip_forward, and after it what the kernel sets anew with it, whatever it was: inet_forward_change()."""
    interfaces = sorted(path.name.replace(".", "/") for path in _INTERFACES.iterdir() if path.name != "all")
    each = [f"net.ipv4.conf.{name}.forwarding" for name in interfaces]
    return ["net.ipv4.ip_forward", "net.ipv4.conf.all.accept_redirects", *each]


def read(name: str) -> str:
    return _path(name).read_text().strip()


def write(name: str, value: str) -> None:
    """Set it where it differs. Raises OSError naming what was asked."""
    path = _path(name)
    if path.read_text().strip() == value:
        return
    try:
        path.write_text(value)
    except OSError as error:
        raise OSError(error.errno, f"set {name} to {value!r}: {error.strerror}") from None


def save(path: Path, names: Iterable[str]) -> None:
    """Keep the present values for restore(), in this order, unless an earlier run did already."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torn = path.with_suffix(".new")
        torn.write_text(json.dumps({name: read(name) for name in names}))
        torn.rename(path)


def restore(path: Path) -> None:
    """Give back what save() kept; nothing to do where it did not, nor for an interface that is gone."""
    if path.exists():
        for name, value in json.loads(path.read_text()).items():
            with contextlib.suppress(FileNotFoundError):
                write(name, value)
        path.unlink()


def refusal(name: str, host_network: bool, host_ipc: bool) -> str | None:
    """Say why a pod may not set this one; None where it may."""
    if name not in SAFE:
        return f"forbidden sysctl: {name!r} is not one of the safe ones"
    if host_network and name.startswith("net."):
        return f"forbidden sysctl: {name!r} would change the node's network: the pod uses hostNetwork"
    if host_ipc and name.startswith("kernel."):
        return f"forbidden sysctl: {name!r} would change the node's ipc namespace: the pod uses hostIPC"
    return None
