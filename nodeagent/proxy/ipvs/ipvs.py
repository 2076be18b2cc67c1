"""The ipvs mode: services as virtual servers of the kernel's load balancer. See mode.py for what a mode promises.

Owns what each service was made of. Never decides what a service needs (plan.py) nor how it gets there (node.py).
IPVS tells nobody of changes: only those of addresses and rules are heard, virtual servers are looked at now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from nodeagent.proxy import selftest
from nodeagent.proxy.changes import ADDRESSES, RULES, Changes, answering, deaf
from nodeagent.proxy.inspection import Inspection
from nodeagent.proxy.ipvs import kernel, node
from nodeagent.proxy.ipvs.marks import Marks
from nodeagent.proxy.ipvs.node import Node
from nodeagent.proxy.ipvs.plan import Part, host_ports, mark_names, part, shares, spelled
from nodeagent.proxy.ipvs.spared import Spared
from nodeagent.proxy.mode import Last, Ranges, RulesRefused, RulesUnavailable, Wanted
from nodeagent.proxy.services import HostPort, ServicePort
from nodeagent.proxy.shares import Shares
from podplane.files import replace

log = logging.getLogger(__name__)

T = TypeVar("T")

HOST_PORTS = "host ports"
"""What owns their entries; no service has such a name."""
_SHARE, _LATEST = 100, 4.0
"""Looking takes at most one part of this of one core's time, but for what was heard, or what would be late: a look
that is asked for every 5 s (runner.Pace) is none of those that are passed over."""
_MARKS = "ipvs-marks.json"
"""In the run directory: which marks the services have."""
_NONE = Part()


async def open(scheduler: str, run: Path) -> IpvsMode:
    """Have the modules loaded. run: where what must outlive the agent is kept. Raises RulesUnavailable."""

    def work() -> Node:
        kernel.load(scheduler)
        return Node(kernel.in_namespace(lambda: kernel.hertz(scheduler)), run)

    return IpvsMode(await _in_thread(work), scheduler, run / _MARKS)


async def remove(run: Path) -> None:
    """Take virtual servers, device and table away and give the settings back; at once where there is nothing."""
    await _in_thread(lambda: node.remove(run))
    (run / _MARKS).unlink(missing_ok=True)


async def missing(scheduler: str) -> str:
    """Why this mode cannot work here, found by selftest.py; "" where it can."""
    with tempfile.TemporaryDirectory() as run:
        return await selftest.missing(functools.partial(open, scheduler, Path(run)))


async def _in_thread(work: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(work)
    except OSError as error:
        raise RulesUnavailable(str(error)) from error


class IpvsMode:
    """See mode.Mode."""

    name = "ipvs"

    def __init__(self, node: Node, scheduler: str, saved: Path) -> None:
        """saved: where the marks are kept."""
        self._node = node
        self._saved = saved
        self._marks = Marks(_marks(saved))
        self._kept_marks = self._marks.given
        self._scheduler = scheduler
        self._last = Last()
        self._standing: dict[str, Part] = {}
        self._host_ports: tuple[HostPort, ...] | None = None
        self._is_adopted = False
        """Whether what stands is known: what an earlier agent left is read where it is asked for."""
        self._shares = Shares(shares, spelled)
        self._spared = Spared()
        self._ranges: Ranges | None = None
        self._changes: dict[tuple[int, int], Changes] = {}
        node.deaf_to = lambda group: deaf(self._changes.get(group))
        self._hear: Callable[[], None] = lambda: None
        self._heard = False
        self._due = 0.0

    @property
    def written(self) -> int:
        return self._node.written

    @property
    def certain(self) -> bool:
        return self._node.certain

    async def prepare(self, ranges: Ranges) -> None:
        """Nothing: what stands is read when it is known what is wanted."""

    async def apply(self, wanted: Wanted) -> dict[str, str]:
        asked = functools.partial(_asked, wanted)
        spared = self._spared.among(asked, time.monotonic())
        while True:
            parts, changed = self._made(wanted)
            refused = self._settle(parts, changed, spared)
            if not self._is_adopted and (wanted.kept or refused):
                self._standing = dict(await _in_thread(lambda: self._node.found()))
                self._is_adopted = True
                self._shares.anew(self._standing)
                continue
            try:
                failed = await self._write(parts, changed, wanted.ranges)
            except RulesRefused:
                new = {key: parts[key] for key in changed if key in parts and self._standing.get(key) is not parts[key]}
                at_fault = await _in_thread(functools.partial(node.at_fault, new, wanted.ranges))
                if not at_fault:
                    raise
                self._spared.note(at_fault, asked, time.monotonic())
                spared |= at_fault
                continue
            break
        # What was refused is made anew, and so tried again; what nft refuses, as spared.py has it.
        bad = refused | failed
        self._host_ports = None if HOST_PORTS in bad else wanted.host_ports
        self._ranges, self._standing, self._is_adopted = wanted.ranges, parts, True
        self._last.note(wanted, bad)
        return bad

    async def _write(self, parts: dict[str, Part], changed: Collection[str], ranges: Ranges) -> dict[str, str]:
        def work() -> dict[str, str]:
            self._keep_marks()
            return self._node.apply(parts, changed, ranges)

        with self._answering():
            try:
                return await _in_thread(work)
            except BaseException:
                self._node.forget()
                self._shares.anew(self._standing)
                raise

    def _keep_marks(self) -> None:
        """Write down which marks there are, before any packet gets one."""
        if (given := self._marks.given) != self._kept_marks:
            self._saved.parent.mkdir(parents=True, exist_ok=True)
            replace(self._saved, json.dumps(given).encode())
            self._kept_marks = given

    def _made(self, wanted: Wanted) -> tuple[dict[str, Part], Collection[str]]:
        """The parts of all, those that are the same as before as the same values, and whose may be others."""
        same = wanted.ranges == self._ranges
        services, kept = wanted.services, wanted.kept
        if same:
            changed: Collection[str] = {*self._last.changed(wanted, self._standing)} - {HOST_PORTS}
        else:
            changed = {**self._standing, **services}.keys()
            self._marks.keep(services.keys() | kept)
        parts = dict(self._standing)
        for key in sorted(changed, key=lambda key: (key in services, key)):  # what is given up is free for the others
            if key in services:
                slots = self._marks.settle(key, mark_names(services[key]))
                parts[key] = part(services[key], wanted.ranges, self._scheduler, slots)
            elif key not in kept:
                self._marks.settle(key, ())
                parts.pop(key, None)
        if not same or wanted.host_ports != self._host_ports or HOST_PORTS not in parts:
            parts[HOST_PORTS] = host_ports(wanted.host_ports)
        return parts, {*changed, HOST_PORTS}

    def _settle(self, parts: dict[str, Part], changed: Iterable[str], spared: Mapping[str, str]) -> dict[str, str]:
        """Let the first have what two want; the other keeps what it had, as who is spared does.

        spared: what nft said of those that it refuses.
        """
        before = self._standing
        # Always in one order, since of two the first one has it.
        asked = {
            key: (before.get(key, _NONE), parts.get(key, _NONE))
            for key in sorted(changed)
            if before.get(key) is not parts.get(key)
        }
        refused = self._shares.exchange(asked, {key: words for key, words in spared.items() if key in asked})
        for key in refused:
            parts[key] = asked[key][0]
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
                self._due = time.monotonic() + min(_SHARE * (time.monotonic() - started), _LATEST)
        if not self.certain:  # somebody has changed rules just when it was deaf
            self._hear()
        return True if mended else None

    def listen(self, heard: Callable[[], None]) -> None:
        if self._changes:
            return

        def hear() -> None:
            self._heard = True
            heard()

        self._hear = hear
        try:
            for group in (RULES, ADDRESSES):
                self._changes[group] = Changes(hear, group)
        except OSError as error:
            self._deafen()
            raise RulesUnavailable(f"cannot listen for changes of rules and addresses: {error}") from error

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        """Around work: what was heard before is answered by it. Its own changes are no news (Node.deaf_to)."""
        self._heard = False
        with contextlib.ExitStack() as stack:
            for changes in self._changes.values():
                stack.enter_context(answering(changes, lambda: self.written))
            yield

    async def inspect(self, service: str, ports: tuple[ServicePort, ...], ranges: Ranges) -> Inspection:
        made = part(ports, ranges, self._scheduler, self._marks.find(service, mark_names(ports)))
        return await _in_thread(lambda: node.inspect(made, ranges, self._node.hertz))

    async def close(self) -> None:
        self._deafen()
        with contextlib.suppress(OSError):  # the next agent reads what stands, then
            await asyncio.to_thread(self._node.close)

    def _deafen(self) -> None:
        while self._changes:
            self._changes.popitem()[1].close()


def _asked(wanted: Wanted, key: str) -> object:
    """All that the part of that name is made of."""
    return wanted.ranges, wanted.host_ports if key == HOST_PORTS else wanted.services.get(key)


def _marks(saved: Path) -> dict[str, dict[str, int]]:
    """What an earlier agent has written down; nothing where that cannot be read."""
    try:
        found: dict[str, dict[str, int]] = json.loads(saved.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        log.warning("the marks of services in %s cannot be read and are given anew: %s", saved, error)
        return {}
    return found
