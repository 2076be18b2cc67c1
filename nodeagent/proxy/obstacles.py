"""Rules of others that may stop what a service's rules send on: filters that drop what they do not know.

Looks at nothing but the policies of chains for forwarded packets, nftables' (iptables' nft flavour included) and those
of the legacy iptables; never changes any, nor makes a table by asking for it. Blocks for a moment: for threads. Fails
with OSError. Source: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

from nodeagent import netlink
from nodeagent.proxy.iptables import legacy

IPTABLES, LEGACY = "ip filter", "filter of iptables-legacy"
"""The tables in which the iptables mode, of either flavour, lets pass what is ours before any policy."""
_CHAIN = "FORWARD"
"""Where it does; `table ip filter` may have others, of whoever writes nftables' own rules."""

_NETLINK_NETFILTER = 12
_GETCHAIN = 10 << 8 | 4
_TABLE, _NAME, _HOOK, _POLICY = 1, 3, 4, 5
_HOOK_NUMBER = 1
_FORWARD, _DROP = 2, 0
_FAMILIES = {1: "inet", 2: "ip"}


def closed(exempt: str = "") -> tuple[str, ...]:
    """The chains that drop forwarded packets unless a rule of theirs takes them. exempt: a table that passes ours."""
    found = [*_nftables(), *_legacy()]
    return tuple(
        f"table {table}, chain {chain}: policy drop" for table, chain in found if (table, chain) != (exempt, _CHAIN)
    )


def closed_by_iptables() -> str:
    """The table of iptables' that drops what is forwarded, so that only rules in it can let pods pass; "" for none."""
    iptables = ((IPTABLES, _CHAIN), (LEGACY, _CHAIN))
    return next((found[0] for found in (*_nftables(), *_legacy()) if found in iptables), "")


def _nftables() -> Iterator[tuple[str, str]]:
    """(table, chain)"""
    with netlink.Socket(_NETLINK_NETFILTER) as connection:
        for family, name in _FAMILIES.items():
            header = struct.pack("!BBH", family, 0, 0)
            try:
                chains = connection.dump(netlink.Request(_GETCHAIN, 0, header, "list chains"))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
                    raise
                continue
            for body in chains:
                table, chain = _dropping(netlink.attributes(body, 4))
                if body[0] == family and chain:
                    yield f"{name} {table}", chain


def _dropping(chain: dict[int, bytes]) -> tuple[str, str]:
    """(table, chain) of a base chain for forwarded packets that drops; ("", "") for any other."""
    if _HOOK not in chain or int.from_bytes(chain.get(_POLICY, b"\1"), "big") != _DROP:
        return "", ""
    if int.from_bytes(netlink.attributes(chain[_HOOK])[_HOOK_NUMBER], "big") != _FORWARD:
        return "", ""
    return netlink.as_text(chain[_TABLE]), netlink.as_text(chain[_NAME])


def _legacy() -> Iterator[tuple[str, str]]:
    if legacy.drops_forwarded():
        yield LEGACY, _CHAIN
