"""What of the table is in the kernel, by netlink: its layout as a fingerprint, its elements in our words.

Owns the decoding. Never writes. Fails with OSError. Source: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import socket
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from operator import call

from nodeagent import netlink
from nodeagent.proxy.elements import Key, Value
from nodeagent.proxy.nftables.table import CONTAINERS, TABLE

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 10 << 8
_GETTABLE, _GETCHAIN, _GETRULE, _GETSET, _GETSETELEM, _GETGEN = (
    _SUBSYSTEM | number for number in (1, 4, 7, 10, 13, 16)
)
_HEADER = struct.pack("!BBH", 2, 0, 0)  # struct nfgenmsg: NFPROTO_IPV4
_NAME = netlink.attribute(1, f"{TABLE}\0".encode())  # NFTA_*_TABLE and NFTA_TABLE_NAME alike
_GEN_ID = 1
_TABLE_USERDATA = 6
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 1, 3, 4, 5, 7
_RULE_CHAIN, _RULE_EXPRESSIONS = 2, 4
_SET_NAME, _SET_FLAGS, _SET_KEY_LENGTH, _SET_DATA_TYPE, _SET_TIMEOUT = 2, 3, 5, 6, 11
_LIST_SET, _LIST_ELEMENTS = 2, 3
_ELEM_KEY, _ELEM_DATA, _ELEM_USERDATA = 1, 2, 6
_DATA_VALUE, _DATA_VERDICT = 1, 2
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
_DROP, _GOTO = 0, 0xFFFFFFFC
_PROTOCOLS = {6: "tcp", 17: "udp"}
_NESTED = 0x8000
_MANY = 1024
"""Words that are remembered: there are thousands of elements, and few protocols, ports, slots and verdicts."""
_ATTRIBUTE = struct.Struct("=HH")
_U16 = struct.Struct("!H")
_SLOT = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class Shape:
    """chains: how many rules each has. digest: of all that the rules, chains and containers are."""

    stamp: str
    chains: Mapping[str, int]
    containers: Collection[str]
    digest: str


class Reader:
    """Reads the table of the namespace that it was opened in. For use by one thread at a time."""

    def __init__(self) -> None:
        self._socket = netlink.Socket(_NETLINK_NETFILTER)

    def close(self) -> None:
        self._socket.close()

    def generation(self) -> int:
        """What changes with every change of any nftables rule."""
        body = self._socket.ask(netlink.Request(_GETGEN, 0, _HEADER, "ask for the nftables generation"))
        return int.from_bytes(netlink.attributes(body, 4)[_GEN_ID], "big")

    def shape(self) -> Shape | None:
        """The table's layout; None where there is none."""
        try:
            table = self._socket.ask(netlink.Request(_GETTABLE, 0, _HEADER + _NAME, "read the table"))
        except OSError as error:
            if error.errno == 2:
                return None
            raise
        digest = hashlib.sha256()
        chains: dict[str, int] = {}
        for found in self._dump(_GETCHAIN, "list chains"):
            if _text(found[_CHAIN_TABLE]) == TABLE:
                chains[_text(found[_CHAIN_NAME])] = 0
                _feed(digest, found, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE)
        for found in self._dump(_GETRULE, "list rules"):
            chains[_text(found[_RULE_CHAIN])] = chains.get(_text(found[_RULE_CHAIN]), 0) + 1
            _feed(digest, found, _RULE_CHAIN, _RULE_EXPRESSIONS)
        containers = []
        for found in self._dump(_GETSET, "list sets"):
            containers.append(_text(found[_SET_NAME]))
            _feed(digest, found, _SET_NAME, _SET_FLAGS, _SET_KEY_LENGTH, _SET_DATA_TYPE, _SET_TIMEOUT)
        stamp = _comment(netlink.attributes(table, 4).get(_TABLE_USERDATA, b""))
        return Shape(stamp, chains, containers, digest.hexdigest())

    def _dump(self, kind: int, asked: str) -> Iterator[dict[int, bytes]]:
        for body in self._socket.dump(netlink.Request(kind, 0, _HEADER + _NAME, asked)):
            yield netlink.attributes(body, 4)

    def raw(self, container: str) -> list[bytes]:
        """The elements of a container, as the kernel tells them."""
        name = netlink.attribute(_LIST_SET, f"{container}\0".encode())
        return self._socket.dump(
            netlink.Request(_GETSETELEM, 0, _HEADER + _NAME + name, f"list the elements of {container}")
        )


def elements(container: str, raw: list[bytes]) -> Iterator[tuple[Key, Value]]:
    """Decode what Reader.raw() returned. An agent that has just started decodes all there are: 2 to 3 µs each."""
    known = CONTAINERS.get(container)
    fields = known.key if known else ("ip",) if container.startswith("aff-") else ("ip", "port")
    ways = [_WORDS[field] for field in fields]
    size = 4 * len(fields)
    heads = _heads(_ELEM_KEY, size)
    split = struct.Struct("4s" * len(fields)).unpack_from
    for body in raw:
        for element in _nested(netlink.attributes(body, 4).get(_LIST_ELEMENTS, b"")):
            if not element.startswith(heads):
                raise OSError(errno.EPROTO, f"an element of {container} does not begin with its key")
            yield (container, " . ".join(map(call, ways, split(element, 8)))), _value(element, size + 8)


def _heads(kind: int, size: int) -> tuple[bytes, ...]:
    """How an attribute of so many bytes of data begins: as the kernel tells it, and as nft and we write it."""
    value = _ATTRIBUTE.pack(size + 4, _DATA_VALUE)
    return tuple(_ATTRIBUTE.pack(size + 8, flag | kind) + value for flag in (0, _NESTED))


def _nested(data: bytes) -> Iterator[bytes]:
    """The payloads of a list of attributes, all of one kind."""
    offset = 0
    while offset + 4 <= len(data):
        length, _ = _ATTRIBUTE.unpack_from(data, offset)
        yield data[offset + 4 : offset + length]
        offset += length + (-length % 4)


def _value(element: bytes, offset: int) -> Value:
    """What the attributes after an element's key say."""
    target = ""
    if element.startswith(_TARGETS, offset):
        address, port = element[offset + 8 : offset + 12], element[offset + 12 : offset + 16]
        target, offset = f"{socket.inet_ntoa(address)} . {_port(port)}", offset + 16
    if offset == len(element):
        return target, ""
    parts = netlink.attributes(element, offset)
    return target or _verdict(parts.get(_ELEM_DATA, b"")), _comment(parts.get(_ELEM_USERDATA, b""))


@functools.lru_cache(_MANY)
def _verdict(data: bytes) -> str:
    """ "" where there is none."""
    if not data:
        return ""
    verdict = netlink.attributes(netlink.attributes(data)[_DATA_VERDICT])
    code = int.from_bytes(verdict[_VERDICT_CODE], "big")
    if code == _GOTO:
        return f"goto {_text(verdict[_VERDICT_CHAIN])}"
    return "drop" if code == _DROP else f"verdict {code}"


@functools.lru_cache(_MANY)
def _protocol(word: bytes) -> str:
    return _PROTOCOLS.get(word[0], str(word[0]))


@functools.lru_cache(_MANY)
def _port(word: bytes) -> str:
    return str(_U16.unpack_from(word)[0])


@functools.lru_cache(_MANY)
def _slot(word: bytes) -> str:
    return str(_SLOT.unpack(word)[0])


_WORDS: Mapping[str, Callable[[bytes], str]] = {
    "ip": socket.inet_ntoa,
    "proto": _protocol,
    "port": _port,
    "slot": _slot,
}
"""Each field takes four bytes."""
_TARGETS = _heads(_ELEM_DATA, 8)


def _comment(userdata: bytes) -> str:
    """nft's comment: type 0, length, text."""
    offset = 0
    while offset + 2 <= len(userdata):
        kind, length = userdata[offset], userdata[offset + 1]
        if kind == 0:
            return _text(userdata[offset + 2 : offset + 2 + length])
        offset += 2 + length
    return ""


def _feed(digest: object, found: dict[int, bytes], *kinds: int) -> None:
    digest.update(repr([found.get(kind) for kind in kinds]).encode())  # type: ignore[attr-defined]


_text = netlink.as_text
