"""Which pod has which address of this node's pod CIDR.

Owns the table in memory; the durable copy is in each pod's journal record, written before the address is used.
"""

from __future__ import annotations

from nodeagent.sandbox.ipam import AddressPool, PoolExhausted

__all__ = ["Addresses", "PoolExhausted"]


class Addresses:
    """take and give back; `cidr` is empty until the control plane has said it."""

    def __init__(self) -> None:
        self.cidr = ""
        self._pool = AddressPool()
        self._taken: dict[str, str] = {}

    def take(self, uid: str) -> str:
        """The pod's address, a new one where it has none. Raises PoolExhausted."""
        if uid not in self._taken:
            if not self.cidr:
                raise PoolExhausted("cannot give a pod an address: the control plane has not given this node a range")
            self._taken[uid] = self._pool.allocate(self.cidr, self._taken.values())
        return self._taken[uid]

    def claim(self, uid: str, address: str) -> None:
        """A pod that recovery found has this address."""
        self._taken[uid] = address

    def give_back(self, uid: str) -> None:
        self._taken.pop(uid, None)
