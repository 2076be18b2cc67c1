"""Elements of a table as netlink messages: what nft makes of the same words, in a tenth of the time. Pure.

Owns the encoding of elements, for containers that stand. Never sends anything (writer.py does), and knows nothing of
chains, rules and containers themselves: these are few, and nft's own words say them better. Raises NO_ELEMENT for what
is none. Source: linux/netfilter/nf_tables.h; nftables/reading.py decodes it.
"""

from __future__ import annotations

import functools
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping

from nodeagent.netlink import NLM_F_CREATE, Request, attribute
from nodeagent.proxy.elements import Changes, Container

NO_ELEMENT = KeyError, ValueError, OverflowError, OSError
SUBSYSTEM = 10
"""NFNL_SUBSYS_NFTABLES."""
_ADD, _DELETE = SUBSYSTEM << 8 | 12, SUBSYSTEM << 8 | 14
_NESTED = 0x8000
_HEADER = struct.pack("!BBH", 2, 0, 0)  # struct nfgenmsg: NFPROTO_IPV4
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_ELEMENT = 1 | _NESTED
_KEY, _DATA, _USERDATA = 1 | _NESTED, 2 | _NESTED, 6
_VALUE, _VERDICT = 1, 2 | _NESTED
_CODE, _CHAIN = 1, 2
_COMMENT = 0
_DROP, _GOTO = 0, 0xFFFFFFFC
_PROTOCOLS = {"tcp": 6, "udp": 17}
_ROOM = 60_000
"""Bytes of elements in one message: an attribute's length is a number of 16 bits."""


def requests(table: str, changes: Changes, containers: Mapping[str, Container]) -> list[Request]:
    """The messages of one transaction: what goes, then what comes. The changes are for containers that stand."""
    which = attribute(_LIST_TABLE, f"{table}\0".encode())
    keyed = {name: _keyed(container.key) for name, container in containers.items()}
    valued = {name: _VALUES[container.value] for name, container in containers.items()}
    lost: dict[str, list[bytes]] = {}
    for _, (container, key) in changes.gone:
        lost.setdefault(container, []).append(keyed[container](key, b""))
    won: dict[str, list[bytes]] = {}
    for _, (container, key), (leads_to, comment) in changes.added:
        rest = valued[container](leads_to)
        won.setdefault(container, []).append(keyed[container](key, rest + _said(comment) if comment else rest))
    groups = (_DELETE, 0, lost), (_ADD, NLM_F_CREATE, won)
    return [
        _request(kind, flags, which, name, some)
        for kind, flags, found in groups
        for name, items in found.items()
        for some in _rooms(items)
    ]


def _request(kind: int, flags: int, table: bytes, container: str, elements: bytes) -> Request:
    names = table + attribute(_LIST_SET, f"{container}\0".encode())
    body = _HEADER + names + attribute(_LIST_ELEMENTS | _NESTED, elements)
    return Request(kind, flags, body, f"change elements of {container}")


def _rooms(items: Iterable[bytes]) -> Iterator[bytes]:
    """The elements of one message each."""
    some: list[bytes] = []
    size = 0
    for item in items:
        if size + len(item) > _ROOM:
            yield b"".join(some)
            some, size = [], 0
        some.append(item)
        size += len(item)
    yield b"".join(some)


def _keyed(fields: tuple[str, ...]) -> Callable[[str, bytes], bytes]:
    """From a key in our words, and what follows it, to an element. Each field takes four bytes."""
    pack = struct.Struct("=6H" + "".join(_FORMS[field] for field in fields)).pack
    ways = [_WAYS[field] for field in fields]
    size = 4 * len(fields)

    def element(key: str, rest: bytes) -> bytes:
        words = key.split(" . ")
        if len(words) != len(ways):
            raise ValueError(f"{key!r} is no key of {', '.join(fields)}")
        told = [way(word) for way, word in zip(ways, words)]  # noqa: B905  (a tenth of all the time)
        return pack(size + 12 + len(rest), _ELEMENT, size + 8, _KEY, size + 4, _VALUE, *told) + rest

    return element


def _target(word: str) -> bytes:
    address, _, port = word.partition(" . ")
    return _TARGET.pack(16, _DATA, 12, _VALUE, socket.inet_aton(address), socket.htons(int(port)))


@functools.cache
def _verdict(word: str) -> bytes:
    if word == "drop":
        verdict = attribute(_CODE, struct.pack("!I", _DROP))
    elif word.startswith("goto "):
        verdict = attribute(_CODE, struct.pack("!I", _GOTO)) + attribute(_CHAIN, f"{word[5:]}\0".encode())
    else:
        raise ValueError(f"{word!r} is no verdict")
    return attribute(_DATA, attribute(_VERDICT, verdict))


def _said(comment: str) -> bytes:
    text = comment.encode() + b"\0"
    return attribute(_USERDATA, bytes((_COMMENT, len(text))) + text)


_TARGET = struct.Struct("=4H4sH2x")
_VALUES: Mapping[str, Callable[[str], bytes]] = {"target": _target, "verdict": _verdict, "": lambda _: b""}
_FORMS = {"ip": "4s", "proto": "B3x", "port": "H2x", "slot": "I"}
_WAYS: Mapping[str, Callable[[str], bytes | int]] = {
    "ip": socket.inet_aton,
    "proto": _PROTOCOLS.__getitem__,
    "port": lambda word: socket.htons(int(word)),
    "slot": int,
}
