"""One node's ipvs mode in the kernel: device, virtual servers and table, brought to what is wanted and kept there.

    more is wanted   addresses ─► virtual servers ─► table
    less is wanted                                   table ─► virtual servers ─► addresses

so that at no time a packet is led to what is not there. Owns the belief of what stands; it is thrown away where
anything fails, and the kernel is read anew. Blocks: for threads, one at a time. Fails with RulesRefused,
RulesUnavailable and OSError.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nodeagent import netlink
from nodeagent.proxy.inspection import Inspection
from nodeagent.proxy.ipvs import device, kernel, lines, ruleset, servers, table
from nodeagent.proxy.ipvs.plan import Front, Part, Server, Target, hash_of
from nodeagent.proxy.ipvs.ruleset import Ruleset
from nodeagent.proxy.ipvs.servers import Standing, Step
from nodeagent.proxy.mode import Ranges, RulesRefused
from nodeagent.proxy.services import ServicePort
from nodeagent.sandbox import sysctl

Parts = Mapping[str, Part]
"""By service, and the host ports' under a name that no service has."""
_PREFIX = "net.ipv4.vs."


@dataclass(frozen=True, slots=True)
class Union:
    """Parts joined. No two of them have the same server or element."""

    servers: dict[Front, Server] = field(default_factory=dict)
    addresses: set[str] = field(default_factory=set)
    remote: set[str] = field(default_factory=set)
    elements: dict[tuple[str, str], str] = field(default_factory=dict)
    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)


def union(parts: Iterable[Part]) -> Union:
    made = Union()
    for part in parts:
        made.servers.update(part.servers)
        made.addresses.update(part.addresses)
        made.remote.update(part.remote)
        made.elements.update(part.elements)
        made.chains.update(part.chains)
    return made


def _listed(addresses: Iterable[str], remote: Iterable[str]) -> dict[tuple[str, str], str]:
    """The entries that several services may have."""
    made = {("addresses", item): "" for item in addresses}
    return made | {("themselves", f"{item} . {item}"): "" for item in remote}


class Node:
    """What stands in one network namespace."""

    def __init__(self, hertz: int) -> None:
        """hertz: the kernel's. Raises RulesUnavailable, OSError."""
        self.hertz = hertz
        self._ipvs = kernel.Ipvs(hertz)
        try:
            self._route = netlink.Socket()
        except BaseException:
            self._ipvs.close()
            raise
        self._lines = 0
        self._parts: Parts = {}
        self._ranges: Ranges | None = None
        self._index = 0
        self._kept: dict[str, str] = {}
        self._standing: Standing = {}
        self._since: dict[tuple[Front, Target], float] = {}
        self._rules = Ruleset()
        self._is_known = False

    def close(self) -> None:
        """Let go of the sockets; what stands is noted, so that the next agent knows it again."""
        try:
            if self._is_known:
                self._note()
        finally:
            self._route.close()
            self._ipvs.close()

    @property
    def written(self) -> int:
        return self._ipvs.written + self._rules.written + self._lines

    @property
    def certain(self) -> bool:
        """Whether it is known what stands, but for what a look costs."""
        return self._is_known and self._rules.certain

    def forget(self) -> None:
        """Believe nothing of what stands."""
        self._is_known = False

    def apply(self, parts: Parts, ranges: Ranges) -> dict[str, str]:
        """Bring the kernel to parts. Returns refusals, by service."""
        known = self._is_known and ranges == self._ranges
        self._is_known = False
        changed = {key for key in {**self._parts, **parts} if self._parts.get(key) is not parts.get(key)}
        old = {key: self._parts[key] for key in changed if key in self._parts}
        before, self._parts, self._ranges = self._parts, dict(parts), ranges
        new = {key: parts[key] for key in changed if key in parts}
        try:
            refused = self._change(union(old.values()), new) if known else self._whole()
        except BaseException:
            self._parts = before
            raise
        self._is_known = True
        return refused

    def look(self) -> bool:
        """Look whether all stands, mend it, and let real servers go that are drained. True: it was mended."""
        ranges = self._ranges
        if ranges is None:
            return False
        self.let_go()
        self._is_known = False
        written = self.written
        self._whole()
        self._is_known = True
        return self.written > written

    def _change(self, old: Union, parts: Parts) -> dict[str, str]:
        """From old to the parts that have come in its place; what costs, costs for these alone."""
        new = union(parts.values())
        come, gone = new.addresses - old.addresses, old.addresses - self._all("addresses")
        appeared, left = new.remote - old.remote, old.remote - self._all("remote")
        refused = self._put_addresses(come)
        fronts = {**old.servers, **new.servers}
        failed = self._perform(list(servers.additions(self._those(fronts), new.servers)))
        before, after = old.elements | _listed(gone, left), new.elements | _listed(come, appeared)
        chains = {name: rules for name, rules in new.chains.items() if old.chains.get(name) != rules}
        if text := table.update(before, after, old.chains.keys() - new.chains.keys(), chains):
            self._rules.write(text, self._digest())
        # As it stands after the additions: a virtual server whose real servers have all changed must not seem empty.
        there = self._those(fronts)
        failed |= self._perform(list(servers.removals(there, new.servers, self._since, time.monotonic())))
        self._note_leaving(new.servers)
        return _by_service(parts, failed, refused | self._take_addresses(gone))

    def _those(self, fronts: Iterable[Front]) -> Standing:
        return {front: self._standing[front] for front in fronts if front in self._standing}

    def _all(self, of: str) -> set[str]:
        return {item for part in self._parts.values() for item in getattr(part, of)}

    def _whole(self) -> dict[str, str]:
        """From whatever there is to all parts; nothing is written where it is right."""
        assert self._ranges is not None
        wanted = union(self._parts.values())
        self._open_device()
        kernel.set_up()
        have = device.addresses(self._route, self._index)
        refused = self._put_addresses(wanted.addresses - have)
        self._standing = self._ipvs.standing(have | wanted.addresses)
        failed = self._perform(list(servers.additions(self._standing, wanted.servers)))
        if not self._rules.stands(digest := self._digest()):
            elements = wanted.elements | _listed(wanted.addresses, wanted.remote)
            text = table.base(self._ranges) + table.update({}, elements, (), wanted.chains)
            self._rules.write(text, digest)
        self._note()
        failed |= self._perform(list(servers.removals(self._standing, wanted.servers, self._since, time.monotonic())))
        self._since = {key: at for key, at in self._since.items() if key[0] in wanted.servers}
        self._note_leaving(wanted.servers)
        return _by_service(self._parts, failed, refused | self._take_addresses(have - wanted.addresses))

    def _note_leaving(self, wanted: Mapping[Front, Server]) -> None:
        there = self._those(wanted)
        leaving = servers.leaving(there, wanted)
        for key in [key for key in self._since if key[0] in wanted and key not in leaving]:
            del self._since[key]
        for key in leaving:
            self._since.setdefault(key, time.monotonic())

    def let_go(self) -> None:
        """Remove real servers that are drained."""
        if not self._since or not self._is_known:
            return
        wanted = {front: server for part in self._parts.values() for front, server in part.servers.items()}
        fronts = {front for front, _ in self._since if front in wanted}
        found = self._ipvs.standing({front.address for front in fronts})
        there = {front: found[front] for front in fronts if front in found}
        self._perform(list(servers.removals(there, wanted, self._since, time.monotonic())))
        self._note_leaving({front: wanted[front] for front in fronts})

    def _open_device(self) -> None:
        found = device.find(self._route)
        if found is None:
            device.add(self._route)
            self._lines += 1
            found = device.find(self._route)
            assert found is not None
            self._kept = {name.removeprefix(_PREFIX): sysctl.read(name) for name in kernel.SETTINGS}
            device.keep(self._route, self._kept)
            self._index = found[0]
        elif self._index != found[0]:
            self._index, self._kept = found
            self._rules = Ruleset(self._kept.get("rules", ""), self._kept.get("seen", ""), self._rules.written)

    def _digest(self) -> str:
        """A number for the whole table."""
        assert self._ranges is not None
        return hex(hash_of(table.base(self._ranges)) + sum(part.digest for part in self._parts.values()))

    def _note(self) -> None:
        """Keep with the device what the table is and looks like, for a later look and for the next agent."""
        seen = {"rules": self._rules.digest, "seen": self._rules.note()}
        if seen.items() - self._kept.items():
            self._kept |= seen
            device.keep(self._route, self._kept)

    def _perform(self, steps: list[Step]) -> dict[Step, str]:
        refused = self._ipvs.perform(steps)
        self._standing = servers.after(self._standing, (step for step in steps if step not in refused))
        return refused

    def _put_addresses(self, wanted: set[str]) -> dict[str, str]:
        self._lines += len(wanted)
        return device.put(self._route, self._index, wanted) if wanted else {}

    def _take_addresses(self, unwanted: set[str]) -> dict[str, str]:
        self._lines += len(unwanted)
        return device.take(self._route, self._index, unwanted) if unwanted else {}


def _by_service(parts: Parts, failed: Mapping[Step, str], addresses: Mapping[str, str]) -> dict[str, str]:
    refused: dict[str, str] = {}
    if failed or addresses:
        for key, part in parts.items():
            words = [text for step, text in failed.items() if step.front in part.servers]
            words += [addresses[item] for item in part.addresses if item in addresses]
            if words:
                refused[key] = "; ".join(words[:3])
    return refused


def inspect(ports: Sequence[ServicePort], ranges: Ranges, scheduler: str, hertz: int) -> Inspection:
    """What the kernel has of a service, read anew. Raises RulesUnavailable, RulesRefused, OSError."""
    with netlink.Socket() as route:
        found = device.find(route)
        have = device.addresses(route, found[0]) if found else set()
    ipvs = kernel.Ipvs(hertz)
    try:
        standing = ipvs.standing(have | {port.cluster_ip for port in ports})
    finally:
        ipvs.close()
    there = lines.listed(ruleset.read()) if ruleset.fingerprint() else lines.Listed()
    return lines.inspection(ports, ranges, scheduler, have, standing, there)


def remove() -> None:
    """Take all of it out of the kernel and give the settings back; at once where there is nothing."""
    with netlink.Socket() as route:
        found = device.find(route)
        if found is not None:
            index, kept = found
            have = device.addresses(route, index)
            ipvs = kernel.Ipvs()
            try:
                steps = [servers.DeleteServer(front) for front in ipvs.standing(have)]
                if refused := ipvs.perform(steps):
                    raise RulesRefused("; ".join(list(refused.values())[:3]))
            finally:
                ipvs.close()
        if ruleset.fingerprint():
            ruleset.load(table.removal())
        if found is not None:
            for name, value in kept.items():
                if _PREFIX + name in kernel.SETTINGS:
                    sysctl.write(_PREFIX + name, value)
            device.delete(route)
