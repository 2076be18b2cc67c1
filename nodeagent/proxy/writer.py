"""Gives elements to nftables by netlink (messages.py), each time in one transaction.

Owns a socket of the namespace that it was opened in. Never says what is to be done where the kernel does not take them.
Blocks: for threads, one at a time. Fails with OSError.
"""

from __future__ import annotations

from collections.abc import Sequence

from nodeagent import netlink
from nodeagent.proxy.messages import SUBSYSTEM

_NETLINK_NETFILTER = 12


class Writer:
    """Kept open: to close a socket, the kernel waits until what was deleted last is freed, 5 to 15 ms."""

    def __init__(self) -> None:
        self._socket = netlink.Socket(_NETLINK_NETFILTER)

    def close(self) -> None:
        self._socket.close()

    def write(self, requests: Sequence[netlink.Request]) -> None:
        """Do all or nothing. Raises NetlinkError: of a refusal, and where no answer came."""
        try:
            self._socket.transact(SUBSYSTEM, requests)
        except OSError:
            self._socket.close()  # with all that it was still to say
            self._socket = netlink.Socket(_NETLINK_NETFILTER)
            raise
