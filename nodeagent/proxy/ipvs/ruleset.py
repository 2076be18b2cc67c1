"""The ipvs mode's nftables table in the kernel: looked at and, elements alone, written by netlink; else in nft's words.

    generation as after our last writing ──► stands; no process, no reading
    another generation ──► somebody changed rules: ours too, if they are not what they were (a fingerprint of all of it)

Owns the table `ip podplane-ipvs`, whole; never reads or changes another. Blocks: for threads. Fails with OSError,
and with RulesRefused in nft's own words.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from nodeagent import netlink
from nodeagent.proxy import messages
from nodeagent.proxy.ipvs.table import CONTAINERS, TABLE, Update
from nodeagent.proxy.libnftables import runner
from nodeagent.proxy.mode import RulesRefused, RulesUnavailable
from nodeagent.proxy.writer import Writer

log = logging.getLogger(__name__)

_NETLINK_NETFILTER = 12
_NFT = 10 << 8
_GET_RULE, _GET_ELEMENTS, _GET_GENERATION = _NFT | 7, _NFT | 13, _NFT | 16
_GENERATION = 1
_RULE_TABLE, _LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 1, 2, 3
_ELEMENT_KEY, _DATA_VALUE = 1, 1
_HEADER = struct.pack("!BBH", 2, 0, 0)  # struct nfgenmsg: AF_INET
_DEADLINE = 30.0


def connect() -> netlink.Socket:
    """To be kept open: the kernel lets one be closed only when it has freed what was replaced, 10 ms later."""
    return netlink.Socket(_NETLINK_NETFILTER)


class Ruleset:
    """What is believed of the table. digest: what it was made of; seen: its fingerprint right after, "" for unknown.

    deaf: around what changes the rules, for who hears of others' changes.
    """

    def __init__(
        self,
        connection: netlink.Socket,
        writer: Writer,
        digest: str = "",
        seen: str = "",
        written: int = 0,
        deaf: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self._connection = connection
        self._writer = writer
        self._deaf = deaf
        self.digest = digest
        self.written = written
        self._seen = seen
        self._generation = -1

    @property
    def certain(self) -> bool:
        return self._generation >= 0

    def stands(self, digest: str) -> bool:
        """Whether the kernel has what was made of that. Raises OSError."""
        if digest != self.digest:
            return False
        now = generation(self._connection)
        if now != self._generation and (not self._seen or self._seen != fingerprint(self._connection)):
            return False
        self._generation = now
        return True

    def write(self, update: Update, digest: str) -> None:
        """Do what makes the table that of the digest. Raises RulesRefused, RulesUnavailable, OSError."""
        before, known = generation(self._connection), self._generation
        if known != before and self._seen and self._seen == fingerprint(self._connection):
            known = before  # what others have changed was their own
        held = self.digest, self._seen, self._generation
        self.digest, self._seen, self._generation = "", "", -1
        self.written += update.count
        try:
            with self._deaf():
                self._do(update)
        except RulesRefused:
            # All or nothing: the table is as it was, or else the generation is another one.
            self.digest, self._seen, self._generation = held
            raise
        after = generation(self._connection)
        self.digest = digest
        # One more is ours. Any other was somebody else's: then it is not known what stands.
        if after == before + 1 and (known == before or update.base):
            self._generation = after

    def _do(self, update: Update) -> None:
        if not update.is_plain:
            load(update.text)
            return
        try:
            self._writer.write(messages.requests(TABLE, update.changes, CONTAINERS))
        except messages.NO_ELEMENT as error:  # the kernel's words are an OSError
            log.info("the kernel does not take elements by netlink, nft is asked: %s", error)
            load(update.text)

    def note(self) -> str:
        """The fingerprint of what stands, "" where that is not known. Reads the table once after a writing."""
        if not self._seen and self._generation >= 0:
            seen = fingerprint(self._connection)
            if generation(self._connection) == self._generation:
                self._seen = seen
        return self._seen


def load(text: str) -> None:
    """Do all of it, or nothing. Raises RulesRefused, RulesUnavailable."""
    try:
        runner()(text)
    except RulesRefused as error:
        raise _refused(str(error)) from None


def refusal(text: str) -> str:
    """Why nft would not do all of it, in its words; "" where it would. Changes nothing. Raises RulesUnavailable."""
    try:
        _nft(["-c", "-f", "-"], text)
    except RulesRefused as error:
        return str(error)
    return ""


def read() -> str:
    """The table as JSON, by nft. Raises RulesRefused where there is none, RulesUnavailable."""
    return _nft(["-j", "list", "table", "ip", TABLE])


def text() -> str:
    """The table in nft's own words. Raises RulesRefused where there is none, RulesUnavailable."""
    return _nft(["-s", "list", "table", "ip", TABLE])


def _nft(arguments: list[str], text: str = "") -> str:
    try:
        done = subprocess.run(["nft", *arguments], input=text, capture_output=True, text=True, timeout=_DEADLINE)
    except FileNotFoundError:
        raise RulesUnavailable("the program nft is not installed (Debian's package is nftables)") from None
    except subprocess.TimeoutExpired:
        raise RulesUnavailable(f"nft did not end within {_DEADLINE:g} s") from None
    if done.returncode != 0:
        raise _refused(done.stderr or f"exit status {done.returncode}")
    return done.stdout


def _refused(words: str) -> RulesRefused:
    return RulesRefused(f"nft: {words.strip().splitlines()[0]}")


def generation(connection: netlink.Socket) -> int:
    """What changes whenever any rule of this network namespace does."""
    header = struct.pack("!BBH", 0, 0, 0)
    body = connection.ask(netlink.Request(_GET_GENERATION, 0, header, "ask for the nftables generation"))
    return int.from_bytes(netlink.attributes(body, 4)[_GENERATION], "big")


def fingerprint(connection: netlink.Socket) -> str:
    """A number for all rules and elements of the table, "" where there is none. The order of elements is no matter."""
    total = 0
    for piece in _pieces(connection):
        total += int.from_bytes(hashlib.blake2b(piece, digest_size=8).digest(), "big")
    return f"{total & (1 << 64) - 1:016x}" if total else ""


def addresses(connection: netlink.Socket) -> set[str]:
    """The service addresses that the table knows; none where there is no table."""
    return {socket.inet_ntoa(_value(element)) for element in _elements(connection, "addresses")}


def _value(element: bytes) -> bytes:
    [entry] = netlink.attributes(element).values()
    return netlink.attributes(netlink.attributes(entry)[_ELEMENT_KEY])[_DATA_VALUE]


def _pieces(connection: netlink.Socket) -> Iterator[bytes]:
    table = netlink.attribute(_RULE_TABLE, TABLE.encode() + b"\0")
    for body in _dump(connection, netlink.Request(_GET_RULE, 0, _HEADER + table, f"list the rules of {TABLE}")):
        yield body[4:]
    for name in CONTAINERS:
        yield from (name.encode() + element for element in _elements(connection, name))


def _elements(connection: netlink.Socket, name: str) -> Iterator[bytes]:
    which = netlink.attribute(_LIST_TABLE, TABLE.encode() + b"\0")
    which += netlink.attribute(_LIST_SET, name.encode() + b"\0")
    for body in _dump(connection, netlink.Request(_GET_ELEMENTS, 0, _HEADER + which, f"list {name} of {TABLE}")):
        yield from _split(netlink.attributes(body, 4).get(_LIST_ELEMENTS, b""))


def _dump(connection: netlink.Socket, request: netlink.Request) -> list[bytes]:
    try:
        return connection.dump(request)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
            raise
        return []


def _split(data: bytes) -> Iterator[bytes]:
    """Each attribute of a list, whose kinds are all the same."""
    offset = 0
    while offset + 4 <= len(data):
        length = int.from_bytes(data[offset : offset + 2], "little")
        if length < 4:
            return
        yield data[offset : offset + length]
        offset += length + (-length % 4)
