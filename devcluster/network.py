"""The namespaces of a cluster: one for the switch, one pair (net, mount) a node, each kept by a holder process.

A holder does nothing but sleep: while it lives its namespaces live, so that a node survives its agent.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from devcluster.commands import run, start
from devcluster.errors import DevClusterError
from devcluster.proc import Process, kill, wait_for


def enter(holder: Process, argv: Sequence[str | Path]) -> list[str]:
    """The command that runs `argv` in a holder's net and mount namespaces."""
    if not holder.alive:
        raise DevClusterError(f"the namespaces of pid {holder.pid} are gone: `make down`, then `make up`")
    inside = [f"--net={holder.namespace('net')}", f"--mount={holder.namespace('mnt')}"]
    return ["nsenter", *inside, "--", *map(str, argv)]


def hold(log: Path) -> Process:
    """New net and mount namespaces, kept by a sleeping process."""
    holder = start(["unshare", "--net", "--mount", "--propagation", "private", "sleep", "infinity"], log)
    own = os.stat("/proc/self/ns/mnt").st_ino
    # unshare needs a moment: before it has called unshare(2) its namespaces are still ours.
    wait_for(lambda: _sleeps(holder) and os.stat(holder.namespace("mnt")).st_ino != own, 10, "a new namespace")
    return holder


def _sleeps(holder: Process) -> bool:
    if not holder.alive:
        raise DevClusterError("cannot make namespaces: unshare ended; is this root, with CAP_SYS_ADMIN?")
    return Path(f"/proc/{holder.pid}/comm").read_text().strip() == "sleep"


def make_switch(holder: Process, cable: str, address: str) -> None:
    """A bridge in the holder's namespace, and a cable from this machine, which gets `address` (CIDR)."""
    run(enter(holder, ["ip", "link", "add", "br0", "type", "bridge"]))
    run(enter(holder, ["ip", "link", "set", "br0", "up"]))
    _plug(holder, "p-host", cable, into=None)
    run(["ip", "address", "add", address, "dev", cable])
    run(["ip", "link", "set", cable, "up"])


def _plug(switch: Process, port: str, name: str, into: Process | None) -> None:
    """A cable: its end `port` on the switch, its end `name` in a namespace (None: this machine's own)."""
    there = ["netns", str(into.pid)] if into else []
    run(["ip", "link", "add", "name", name, *there, "type", "veth", "peer", "name", port, "netns", str(switch.pid)])
    run(enter(switch, ["ip", "link", "set", port, "master", "br0", "up"]))


def make_node(holder: Process, switch: Process, address: str, gateway: str, kept: Sequence[Path], port: str) -> None:
    """A node's own network card (`eth0`) and its private /run and /tmp; `kept` stays visible below /tmp."""
    run(enter(holder, ["ip", "link", "set", "lo", "up"]))
    _plug(switch, port, "eth0", into=holder)
    run(enter(holder, ["ip", "address", "add", address, "dev", "eth0"]))
    run(enter(holder, ["ip", "link", "set", "eth0", "up"]))
    run(enter(holder, ["ip", "route", "add", "default", "via", gateway]))
    _private_tmp(holder, kept)
    run(enter(holder, ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"]))
    # crun refuses a hybrid cgroup layout; without the v2 tree it sees plain v1.
    with contextlib.suppress(DevClusterError):
        run(enter(holder, ["umount", "/sys/fs/cgroup/unified"]))


def _private_tmp(holder: Process, kept: Sequence[Path]) -> None:
    """A tmpfs on /tmp. A checkout below /tmp is bound into it first: the daemons run from there."""
    run(enter(holder, ["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/mnt"]))
    for path in (path for path in kept if path.is_relative_to("/tmp")):
        target = Path("/mnt") / path.relative_to("/tmp")
        run(enter(holder, ["mkdir", "-p", target]))
        run(enter(holder, ["mount", "--rbind", path, target]))
    run(enter(holder, ["mount", "--move", "/mnt", "/tmp"]))


def unplug(cable: str) -> None:
    """Remove this machine's cable; nothing where it is gone."""
    device = Path(f"/sys/class/net/{cable}")
    if not device.exists():
        return
    try:
        run(["ip", "link", "delete", cable])
    except DevClusterError:
        # The kernel takes it away too, a moment after the last process of the switch's namespace.
        if device.exists():
            raise


def release(holder: Process) -> None:
    """End a holder; its namespaces go with their last process."""
    kill([holder])
