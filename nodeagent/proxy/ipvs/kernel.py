"""IPVS in the kernel: its module, its settings, and steps given to it by netlink.

Owns the four settings below and, of the virtual servers, those at addresses of our dummy device and those of our
marks; others' stay as they are. Blocks: for threads. Fails with RulesUnavailable where IPVS cannot be had, with
OSError where netlink fails; a step that the kernel refuses is an answer.
"""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from nodeagent import netlink, syscalls
from nodeagent.netlink import NetlinkError
from nodeagent.proxy.ipvs import messages
from nodeagent.proxy.ipvs.plan import Front
from nodeagent.proxy.ipvs.servers import (
    PATH,
    DeleteReal,
    DeleteServer,
    PutServer,
    Standing,
    Step,
    parse,
)
from nodeagent.proxy.mode import RulesUnavailable
from nodeagent.sandbox import sysctl

T = TypeVar("T")

SETTINGS = {
    # Masquerading and connection tracking see the connections that IPVS forwards.
    "net.ipv4.vs.conntrack": "1",
    # A connection to a real server that is gone ends at its next packet, and the client may be led to another.
    "net.ipv4.vs.expire_nodest_conn": "1",
    # A client's affinity to a real server that is leaving ends.
    "net.ipv4.vs.expire_quiescent_template": "1",
    # A port that a client uses again is a new connection. Kernels before 5.9 then lose its first packet for a second.
    "net.ipv4.vs.conn_reuse_mode": "1",
}
_DEADLINE = 20.0
_BATCH = 64
_GOOD_REUSE = (5, 9)


def load(scheduler: str) -> None:
    """Have the modules loaded. Raises RulesUnavailable saying which one cannot be had."""
    for module in ("ip_vs", f"ip_vs_{scheduler}"):
        try:
            done = subprocess.run(
                ["modprobe", "--", module], capture_output=True, text=True, timeout=_DEADLINE, stdin=subprocess.DEVNULL
            )
            words = done.stderr.strip() if done.returncode else ""
        except FileNotFoundError:
            words = "the program modprobe is not installed (Debian's package is kmod)"
        except subprocess.TimeoutExpired:
            words = f"modprobe did not end within {_DEADLINE:g} s"
        # It may be built in, or loaded by somebody else for a container: the kernel's word counts.
        if words and not (module == "ip_vs" and Path(PATH).exists()) and not Path("/sys/module", module).exists():
            raise RulesUnavailable(f"mode ipvs needs the kernel module {module}: {words.splitlines()[-1]}")


class Ipvs:
    """The virtual servers of the network namespace that it is opened in. Not for concurrent use."""

    def __init__(self, hertz: int = 1) -> None:
        """hertz: of hertz(); without it the affinity of what stands is not known. Raises RulesUnavailable, OSError."""
        self._netlink = netlink.Socket(messages.NETLINK_GENERIC)
        self.written = 0
        self._hertz = hertz
        try:
            self._family = messages.read_family(self._netlink.ask(messages.look_up_family()))
        except OSError as error:
            self._netlink.close()
            if error.errno == errno.ENOENT:
                raise RulesUnavailable("this kernel has no IPVS: its module ip_vs cannot be loaded") from None
            raise

    def close(self) -> None:
        self._netlink.close()

    def standing(self, addresses: frozenset[str] | set[str]) -> Standing:
        """The virtual servers that are ours: at these addresses, or of our marks."""
        found = parse(Path(PATH).read_text(), self._hertz)
        return {key: value for key, value in found.items() if is_ours(key, addresses)}

    def perform(self, steps: Sequence[Step]) -> dict[Step, str]:
        """Do all of them; returns those that the kernel refuses, and its words."""
        refused: dict[Step, str] = {}
        for begin in range(0, len(steps), _BATCH):
            batch = steps[begin : begin + _BATCH]
            self.written += len(batch)
            requests = [messages.request(self._family, step) for step in batch]
            for step, error in zip(batch, self._netlink.attempt(*requests), strict=True):
                if error is not None and not _is_done(step, error):
                    refused[step] = _words(step, error)
        return refused


def is_ours(front: Front, addresses: frozenset[str] | set[str]) -> bool:
    return front.address in addresses if front.address else front.is_marked_ours


def set_up() -> None:
    """Set what forwarding by IPVS needs. Raises OSError."""
    for name, value in SETTINGS.items():
        old_kernel = name.endswith("conn_reuse_mode") and _kernel() < _GOOD_REUSE
        sysctl.write(name, "0" if old_kernel else value)


def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(char for char in minor if char.isdigit()) or 0)


def _is_done(step: Step, error: NetlinkError) -> bool:
    """Whether the refusal says that it is as it should be: gone already, or its virtual server with it."""
    return isinstance(step, DeleteServer | DeleteReal) and error.errno in (errno.ESRCH, errno.ENOENT)


def _words(step: Step, error: NetlinkError) -> str:
    if isinstance(step, PutServer) and error.errno == errno.ENOENT:
        return f"{error}: this kernel has no scheduler {step.scheduler} (module ip_vs_{step.scheduler})"
    return str(error)


def hertz(scheduler: str) -> int:
    """How many ticks the kernel has in a second, by trying; for in_namespace(). Raises RulesUnavailable, OSError."""
    front = Front("tcp", "127.0.0.1", 1)
    ipvs = Ipvs()
    try:
        if refused := ipvs.perform([PutServer(front, scheduler, 1, True)]):
            raise RulesUnavailable("; ".join(refused.values()))
        return ipvs.standing({front.address})[front].affinity
    finally:
        ipvs.close()


def in_namespace(work: Callable[[], T]) -> T:
    """Do work in a network namespace that ends with it."""
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            syscalls.unshare(syscalls.CLONE_NEWNET)
            done.append(work())
        except BaseException as error:  # it is the caller's, who waits
            failed.append(error)

    thread = threading.Thread(target=run, name="ipvs-try", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]
