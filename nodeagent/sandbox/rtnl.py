"""The border to pyroute2: its message classes encode and decode rtnetlink messages here, and nowhere else.

Never sends anything: the transport is nodeagent/netlink.py, since pyroute2's own sockets and namespaces fork, or keep
an event loop each. Values leave this file typed. An attribute whose name pyroute2 does not know is left out without
a word: tests/nodeagent/sandbox/test_links.py holds the bytes of every message.

How it is imported: `import pyroute2.netlink…` runs the package's `__init__`, which loads all that it has: 9 MB and
80 ms more in an agent. The message classes need none of it, so that an empty package stands in for it while they
load (1.3 MB, 17 ms). Then all is taken out of sys.modules: who imports pyroute2 elsewhere gets the whole one.

How fast it is: 0.28 ms for a veth pair, 0.08-0.13 ms for others, 0.2 ms to decode a link. What every pod needs is
therefore encoded once, as a Template, and its copies are patched (5 µs): a pod's link would take twice as long.
"""

from __future__ import annotations

import contextlib
import importlib.util
import struct
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any


@contextlib.contextmanager
def bare_package() -> Iterator[None]:
    """Let submodules of pyroute2 be imported without its `__init__`; nothing to do where that has run already."""
    if "pyroute2" in sys.modules:
        yield
        return
    spec = importlib.util.find_spec("pyroute2")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError("cannot make netlink messages: pyroute2 is not installed", name="pyroute2")
    bare = ModuleType("pyroute2")
    bare.__path__ = list(spec.submodule_search_locations)
    sys.modules["pyroute2"] = bare
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "pyroute2"]:
            del sys.modules[name]


with bare_package():
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

LINK, ADDRESS, ROUTE = "link", "address", "route"
_CLASSES: Mapping[str, Any] = {LINK: ifinfmsg, ADDRESS: ifaddrmsg, ROUTE: rtmsg}
_HEADER = struct.Struct("=IHHII")

Attribute = tuple[str, object]
"""A name of pyroute2's (the kernel's: IFLA_MTU) and a value as pyroute2 takes it: addresses as text."""


def nest(*attributes: Attribute) -> dict[str, list[Attribute]]:
    """The value of an attribute that holds attributes."""
    return {"attrs": list(attributes)}


def encode(form: str, fields: Mapping[str, int], *attributes: Attribute) -> bytes:
    """Encode the body of a message of one form (LINK, ADDRESS, ROUTE). Fields that are not given are 0."""
    message = _CLASSES[form]()
    message.update(fields)
    message["attrs"] = list(attributes)
    message.encode()
    return bytes(message.data[_HEADER.size :])


class Message:
    """One decoded message."""

    def __init__(self, form: str, body: bytes) -> None:
        self._message = _CLASSES[form](_HEADER.pack(_HEADER.size + len(body), 0, 0, 0, 0) + body)
        self._message.decode()

    def field(self, name: str) -> int:
        """A number of the fixed part."""
        return int(self._message[name])

    def number(self, *path: str) -> int:
        """The attribute at the end of the path; 0 without it."""
        return int(self._message.get_nested(*path) or 0)

    def text(self, *path: str) -> str:
        """The attribute at the end of the path, addresses in their usual spelling; "" without it."""
        return str(self._message.get_nested(*path) or "")


class Template:
    """A message's body with holes: what stands at a mark is replaced by another value of the same length."""

    def __init__(self, body: bytes, *marks: bytes) -> None:
        self._body = body
        self._holes = [(len(mark), _positions(body, mark)) for mark in marks]

    def fill(self, *values: bytes) -> bytes:
        """Return the body with a value for each mark. Raises ValueError for one of another length."""
        made = bytearray(self._body)
        for (length, positions), value in zip(self._holes, values, strict=True):
            if len(value) != length:
                raise ValueError(f"cannot put {len(value)} bytes where {length} belong")
            for position in positions:
                made[position : position + length] = value
        return bytes(made)


def _positions(body: bytes, mark: bytes) -> list[int]:
    found = [index for index in range(len(body)) if body.startswith(mark, index)]
    if not found:
        raise ValueError(f"cannot find the mark {mark!r} in a message")
    return found
