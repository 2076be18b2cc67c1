"""Which address a new pod gets: a pure choice over what is taken.

Never stores anything: who calls writes the choice down first (the pod worker's journal) and says what is taken.
Fails with PoolExhausted where the range is full.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network


class PoolExhausted(Exception):
    """Every address of the node's pod range is taken."""


@functools.lru_cache(maxsize=8)
def gateway(cidr: str) -> IPv4Address:
    """The bridge's address: the first of the range."""
    return IPv4Network(cidr)[1]


def hardware_address(owner: IPv4Address) -> bytes:
    """A MAC that follows from the address: a neighbour's cache stays right when the address moves to a new pod."""
    return b"\x0a\x58" + owner.packed


class AddressPool:
    """Hands out a range's addresses in turn, so that one that was just given back is not used again at once.

    Traffic for a pod that is gone (a cached connection, a conntrack entry) must not reach its successor.
    """

    def __init__(self, last: str | None = None) -> None:
        """last: the address given most recently before a restart, where it is known."""
        self._last = IPv4Address(last) if last else None

    def allocate(self, cidr: str, taken: Collection[str]) -> str:
        """Return a free address of cidr: not its network, gateway or broadcast address, and none of `taken`."""
        network = IPv4Network(cidr)
        first, size = int(network[2]), network.num_addresses - 3
        if size < 1:
            raise PoolExhausted(f"cannot give a pod an address: {cidr} has none beside its gateway")
        used = frozenset(taken)
        start = int(self._last) - first + 1 if self._last is not None and self._last in network else 0
        for step in range(size):
            candidate = IPv4Address(first + (start + step) % size)
            if str(candidate) not in used:
                self._last = candidate
                return str(candidate)
        raise PoolExhausted(f"cannot give a pod an address: all {size} of {cidr} are taken")
