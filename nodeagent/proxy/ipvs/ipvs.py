"""The ipvs mode: services as virtual servers of the kernel's load balancer. See mode.py for what a mode promises.

Owns what each service was made of. Never decides what a service needs (plan.py) nor how it gets there (node.py).
IPVS tells nobody of changes: only those of addresses and rules are heard, virtual servers are looked at now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from nodeagent import netlink
from nodeagent.proxy.changes import ADDRESSES, RULES, Changes, deaf
from nodeagent.proxy.inspection import Inspection
from nodeagent.proxy.ipvs import device, kernel, node, ruleset, table
from nodeagent.proxy.ipvs.node import Node
from nodeagent.proxy.ipvs.plan import Part, host_ports, part
from nodeagent.proxy.ipvs.shares import Shares
from nodeagent.proxy.mode import Ranges, RulesRefused, RulesUnavailable, Wanted
from nodeagent.proxy.services import HostPort, ServicePort

T = TypeVar("T")

HOST_PORTS = "host ports"
"""What owns their entries; no service has such a name."""
_REST = 0.25
"""Seconds after a look before others' changes are heard again."""
_SHARE = 100
"""Looking takes at most one part of this of one core's time, but for what was heard."""
_NONE = Part()


async def open(scheduler: str) -> IpvsMode:
    """Have the modules loaded. Raises RulesUnavailable where IPVS cannot be had."""

    def work() -> Node:
        kernel.load(scheduler)
        return Node(kernel.in_namespace(lambda: kernel.hertz(scheduler)))

    return IpvsMode(await _in_thread(work), scheduler)


async def remove() -> None:
    """Take virtual servers, device and table away and give the settings back; at once where there is nothing."""
    await _in_thread(node.remove)


async def missing(scheduler: str = "rr") -> str:
    """Why this mode cannot work here, found by trying in a namespace that ends with the try; "" where it can."""
    try:
        await _in_thread(lambda: kernel.in_namespace(lambda: _try(scheduler)))
    except (RulesUnavailable, RulesRefused, OSError) as error:
        return str(error)
    return ""


def _try(scheduler: str) -> None:
    kernel.load(scheduler)
    with netlink.Socket() as route:
        device.add(route)
    ruleset.load(table.base(Ranges("10.0.0.0/29", "10.0.0.0/28")))
    kernel.set_up()
    kernel.hertz(scheduler)


async def _in_thread(work: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(work)
    except OSError as error:
        raise RulesUnavailable(str(error)) from error


@dataclass(frozen=True, slots=True)
class _Entry:
    ports: tuple[ServicePort, ...]
    part: Part


class IpvsMode:
    """See mode.Mode."""

    name = "ipvs"

    def __init__(self, node: Node, scheduler: str) -> None:
        self._node = node
        self._scheduler = scheduler
        self._entries: dict[str, _Entry] = {}
        self._standing: dict[str, Part] = {}
        self._host_ports: tuple[HostPort, ...] = ()
        self._shares = Shares()
        self._ranges: Ranges | None = None
        self._changes: list[Changes] = []
        self._heard = False
        self._due = 0.0

    @property
    def written(self) -> int:
        return self._node.written

    @property
    def certain(self) -> bool:
        return self._node.certain

    async def apply(self, wanted: Wanted) -> dict[str, str]:
        entries, parts, refused = self._made(wanted)
        with self._answering():
            try:
                failed = await _in_thread(lambda: self._node.apply(parts, wanted.ranges))
            except BaseException:
                self._node.forget()
                raise
        self._ranges, self._host_ports, self._standing = wanted.ranges, wanted.host_ports, parts
        # What was refused is made anew, and so tried again.
        self._entries = {key: entry for key, entry in entries.items() if key not in failed}
        return refused | failed

    def _made(self, wanted: Wanted) -> tuple[dict[str, _Entry], dict[str, Part], dict[str, str]]:
        """The parts of all, those that are the same as before as the same values, and who cannot have his."""
        same = wanted.ranges == self._ranges
        entries: dict[str, _Entry] = {}
        parts = {key: self._standing[key] for key in wanted.kept if key in self._standing}
        for key, ports in wanted.services.items():
            old = self._entries.get(key) if same else None
            if old is None or old.ports is not ports:
                old = _Entry(ports, part(ports, wanted.ranges, self._scheduler))
            entries[key], parts[key] = old, old.part
        if same and wanted.host_ports == self._host_ports and HOST_PORTS in self._standing:
            parts[HOST_PORTS] = self._standing[HOST_PORTS]
        else:
            parts[HOST_PORTS] = host_ports(wanted.host_ports)
        return entries, parts, self._settle(entries, parts)

    def _settle(self, entries: dict[str, _Entry], parts: dict[str, Part]) -> dict[str, str]:
        """Let the first have what two want; the other keeps what it had."""
        refused: dict[str, str] = {}
        before = self._standing
        for key in before.keys() - parts.keys():
            self._shares.move(key, before[key], _NONE)
        changed = [key for key, new in parts.items() if before.get(key) is not new]
        for key in changed:
            old = before.get(key, _NONE)
            if words := self._shares.conflict(key, parts[key]):
                refused[key] = words
                entries.pop(key, None)
                parts[key] = old
            else:
                self._shares.move(key, old, parts[key])
        return refused

    async def look(self) -> bool | None:
        if not self._heard and time.monotonic() < self._due:
            await _in_thread(self._node.let_go)
            return None
        with self._answering():
            started = time.monotonic()
            try:
                mended = await _in_thread(self._node.look)
            except BaseException:
                self._node.forget()
                raise
            finally:
                self._due = time.monotonic() + _SHARE * (time.monotonic() - started)
        return True if mended else None

    def listen(self, heard: Callable[[], None]) -> None:
        if self._changes:
            return

        def hear() -> None:
            self._heard = True
            heard()

        try:
            for group in (RULES, ADDRESSES):
                self._changes.append(Changes(hear, group))
        except OSError as error:
            self._deafen()
            raise RulesUnavailable(f"cannot listen for changes of rules and addresses: {error}") from error

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        """Around work: what was heard before is answered by it, and its own changes are no news."""
        self._heard = False
        for changes in self._changes:
            changes.drain()
        with contextlib.ExitStack() as stack:
            for changes in self._changes:
                stack.enter_context(deaf(changes))
            try:
                yield
            finally:
                for changes in self._changes:
                    changes.resume(_REST)

    async def inspect(self, _service: str, ports: tuple[ServicePort, ...], ranges: Ranges) -> Inspection:
        scheduler, hertz = self._scheduler, self._node.hertz
        return await _in_thread(lambda: node.inspect(ports, ranges, scheduler, hertz))

    async def close(self) -> None:
        self._deafen()
        with contextlib.suppress(OSError):  # the next agent reads what stands, then
            await asyncio.to_thread(self._node.close)

    def _deafen(self) -> None:
        while self._changes:
            self._changes.pop().close()
