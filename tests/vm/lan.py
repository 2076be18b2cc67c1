"""A network for VMs: a bridge with a tap device for each, in a network namespace that nothing else is in.

No packet of a VM can reach the machine's own network, nor the other way round. What a test wants to ask of the VMs from
outside runs inside the namespace (tests/net/kernel.py), from the bridge's address.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from nodeagent import syscalls
from tests.net.kernel import command, in_thread
from tests.vm.machine import Nic


class Lan:
    """Segments on one host: `networks` are the bridge's addresses with prefix lengths, one segment each.

    The namespace forwards between segments, so that VMs of two segments are an L3 hop apart.
    """

    def __init__(self, *networks: str) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="vm-lan-"))
        self.pin = self._directory / "netns"
        self.networks = networks
        self._nics = 0
        in_thread(self._make)
        command(self.pin, "ip link set lo up")
        command(self.pin, "sysctl -q net.ipv4.ip_forward=1")
        for number, network in enumerate(networks):
            command(self.pin, f"ip link add bridge{number} type bridge")
            command(self.pin, f"ip address add {network} dev bridge{number}")
            command(self.pin, f"ip link set bridge{number} up")

    def __enter__(self) -> Lan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def nic(self, address: str, segment: int = 0) -> Nic:
        """A card with this address, plugged into a segment, whose bridge is the gateway."""
        self._nics += 1
        tap, network = f"tap{self._nics}", self.networks[segment]
        command(self.pin, f"ip tuntap add dev {tap} mode tap")
        command(self.pin, f"ip link set {tap} master bridge{segment} up")
        gateway, _, length = network.partition("/")
        mac = f"52:54:00:00:{segment:02x}:{self._nics:02x}"
        return Nic(self.pin, tap, f"{address}/{length}", mac, gateway)

    def plug(self, nic: Nic, in_: bool) -> None:
        """Pull a card's cable, or put it back."""
        command(self.pin, f"ip link set {nic.tap} {'up' if in_ else 'down'}")

    def close(self) -> None:
        """Remove it; the VMs on it must be gone. Safe to call again."""
        if self.pin.exists():
            syscalls.unmount(self.pin)
            self.pin.unlink()
            self._directory.rmdir()

    def _make(self) -> None:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        self.pin.touch()
        syscalls.mount("/proc/thread-self/ns/net", self.pin, None, syscalls.MS_BIND)
