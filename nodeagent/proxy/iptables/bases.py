"""The kernel's own chains (nat PREROUTING ...) that iptables-nft makes when a first rule needs them.

Which of them were not there before us is noted in the kernel, as rules without effect in a chain of ours: the note
lives as long as what it is about, and every agent finds it. What is noted is taken away at the end where it is empty
and lets all pass; whoever uses it meanwhile keeps it. Owns nothing else; legacy tables cannot be taken away at all.
Blocks for microseconds. Fails with OSError. Source: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import contextlib
import errno
import struct
from collections.abc import Iterable

from nodeagent import netlink
from nodeagent.proxy.iptables.rules import JUMPS, MADE, Rules, Tables

Base = tuple[str, str]
"""Table and chain; the chain is THE_TABLE for the table itself."""
THE_TABLE = "TABLE"

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 10
_GETTABLE, _DELTABLE, _GETCHAIN, _DELCHAIN = (_SUBSYSTEM << 8 | number for number in (1, 2, 4, 5))
_NLM_F_NONREC = 0x100
_HEADER = struct.pack("!BBH", 2, 0, 0)  # struct nfgenmsg: NFPROTO_IPV4
_TABLE, _CHAIN, _CHAIN_POLICY = 1, 3, 5
_ACCEPT = 1
_PREFIX = "-m comment --comment "


def wanted() -> frozenset[Base]:
    """All that our jumps need."""
    chains = {(jump.table, jump.chain) for jump in JUMPS}
    return frozenset(chains | {(table, THE_TABLE) for table, _ in chains})


def missing() -> frozenset[Base]:
    """Those that our jumps need and that are not there."""
    return wanted() - _standing().keys()


def notes(made: Iterable[Base]) -> Tables:
    """The note, as chains."""
    tables: dict[str, list[str]] = {}
    for table, chain in sorted(made):
        tables.setdefault(table, []).append(_PREFIX + chain)
    return {table: {MADE: tuple(rules)} for table, rules in tables.items()}


def noted(tables: Tables) -> frozenset[Base]:
    """What the note in these tables says; nothing that our jumps do not need."""
    found: set[Base] = set()
    for table, chains in tables.items():
        rules: Rules = chains.get(MADE, ())
        found |= {(table, rule.removeprefix(_PREFIX)) for rule in rules}
    return frozenset(found & wanted())


def remove(made: frozenset[Base]) -> None:
    """Take these away where nobody uses them. Raises OSError."""
    standing = _standing()
    # Chains before their table.
    for base in sorted(made & standing.keys(), key=lambda base: base[1] == THE_TABLE):
        if standing[base] != _ACCEPT:
            continue
        table, chain = base
        name = netlink.attribute(_TABLE, f"{table}\0".encode())
        kind = _DELTABLE
        if chain != THE_TABLE:
            kind, name = _DELCHAIN, name + netlink.attribute(_CHAIN, f"{chain}\0".encode())
        request = netlink.Request(kind, _NLM_F_NONREC, _HEADER + name, f"remove {table} {chain}")
        with netlink.Socket(_NETLINK_NETFILTER) as connection:
            try:
                connection.transact(_SUBSYSTEM, [request])
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.ENOENT):
                    raise


def _standing() -> dict[Base, int]:
    """Tables and base chains of IPv4 that there are → their policy."""
    found: dict[Base, int] = {}
    with netlink.Socket(_NETLINK_NETFILTER) as connection, contextlib.suppress(FileNotFoundError):
        for body in connection.dump(netlink.Request(_GETTABLE, 0, _HEADER, "list tables")):
            found[netlink.as_text(netlink.attributes(body, 4)[_TABLE]), THE_TABLE] = _ACCEPT
        for body in connection.dump(netlink.Request(_GETCHAIN, 0, _HEADER, "list chains")):
            chain = netlink.attributes(body, 4)
            if _CHAIN_POLICY in chain:
                name = netlink.as_text(chain[_TABLE]), netlink.as_text(chain[_CHAIN])
                found[name] = int.from_bytes(chain[_CHAIN_POLICY], "big")
    return found
