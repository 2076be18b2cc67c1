"""What every proxy mode does: from what is wanted, as values, to what is in the kernel.

A mode owns its own chains, table, sets or virtual servers and touches nothing else. It is built of pure modules that
turn `Wanted` into text or messages, and one that gives these to the kernel. Whoever implements it promises:

- apply() writes only what differs from what stands; a change of one service costs what one service costs, and no
  connection is lost by it. A service that the kernel refuses keeps what it had, is named in the answer, and holds up
  no other.
- The first apply() after open() adopts what an earlier agent left of this mode: it writes nothing where it is right.
- look() finds and mends what others have changed, and is cheap where nothing has.
- Nothing blocks the event loop for long: what may take more than a few milliseconds runs in a thread or a process.

Modes are used by one task (sync.py), never concurrently; modes.py has the list of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from nodeagent.proxy.inspection import Inspection
from nodeagent.proxy.services import HostPort, ServicePort

MASQUERADE_MARK = 0x2000
"""The bit of a packet's mark that says "masquerade me": one for all modes, since a packet may meet two while the mode
is being changed. Not kube-proxy's 0x4000."""


class RulesUnavailable(Exception):
    """The kernel or its tool could not do the work now: no answer in time, a lock held, no such program."""


class RulesRefused(Exception):
    """The kernel or its tool refused the rules; the old ones stand. line: the one complained of, "" if unknown."""

    def __init__(self, message: str, line: str = "") -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class Ranges:
    """pod_cidr: this node's pods. cluster_cidr: the pods of all nodes."""

    pod_cidr: str
    cluster_cidr: str


Services = Mapping[str, tuple[ServicePort, ...]]
"""By namespace/name."""


@dataclass(frozen=True, slots=True)
class Step:
    """What led from the services that were wanted before to those that are now."""

    before: Services
    changed: Collection[str]
    """Whose ports are others now, who came and went, and who is kept now or was."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """All that a node should have in its kernel."""

    ranges: Ranges
    services: Services = field(default_factory=dict)
    """Sorted by name. A service that has not changed has the same tuple as in the time before."""
    kept: frozenset[str] = frozenset()
    """Services that nothing can be made of at present: what they have in the kernel stays."""
    host_ports: tuple[HostPort, ...] = ()
    """Sorted."""
    step: Step | None = field(default=None, repr=False, compare=False)
    """None: it is not known, all have to be compared."""

    def changed_since(self, services: Services) -> Collection[str] | None:
        """Who is wanted otherwise than in services, which were wanted once; None: all have to be compared."""
        return self.step.changed if self.step is not None and self.step.before is services else None


def differing(before: Services, after: Services) -> list[str]:
    """Whose ports are others in after, and who is not there any more."""
    had = before.get
    return [key for key, ports in after.items() if had(key) is not ports] + [key for key in before if key not in after]


class Last:
    """What was wanted last, and who was refused then: by that a mode knows whom it has to look at."""

    def __init__(self) -> None:
        self._services: Services = {}
        self._owed: frozenset[str] = frozenset()

    def note(self, wanted: Wanted, refused: Iterable[str]) -> None:
        """Wanted stands now, but for those who were refused."""
        self._services, self._owed = wanted.services, frozenset(refused)

    def told(self, wanted: Wanted) -> Collection[str] | None:
        """Who is to have something else now, and who was refused; None: all have to be compared."""
        changed = wanted.changed_since(self._services)
        return None if changed is None else self._with_owed(changed)

    def changed(self, wanted: Wanted, standing: Iterable[str]) -> Collection[str]:
        """The same, found by comparing all where it is not told. standing: who has something."""
        told = self.told(wanted)
        if told is not None:
            return told
        changed = dict.fromkeys(differing(self._services, wanted.services))
        return self._with_owed(changed | dict.fromkeys(key for key in standing if key not in wanted.services))

    def _with_owed(self, changed: Collection[str]) -> Collection[str]:
        # In one order always: of two who want the same, the first has it.
        return sorted({*changed, *self._owed}) if self._owed else changed


class Mode(Protocol):
    """One node's rules in one mode. All methods raise RulesUnavailable and RulesRefused; belief is then thrown away."""

    @property
    def name(self) -> str:
        """iptables, ipvs or nftables."""

    @property
    def written(self) -> int:
        """Lines, elements or messages given to the kernel since the start."""

    async def prepare(self, ranges: Ranges) -> None:
        """Do what can be done of the first apply() before it is known what is wanted; changes nothing."""

    async def apply(self, wanted: Wanted) -> dict[str, str]:
        """Bring the kernel to wanted. Returns the words of refusal of single services, by namespace/name."""

    @property
    def certain(self) -> bool:
        """Whether it is known what stands. If not (somebody changed rules while we did), look() comes soon."""

    async def look(self) -> bool | None:
        """Look whether everything stands, and mend it. None: it did; True: mended; False: mended, and changed again."""

    def listen(self, heard: Callable[[], None]) -> None:
        """Call heard, on the event loop, when somebody else may have changed something; until close()."""

    async def inspect(self, service: str, ports: tuple[ServicePort, ...], ranges: Ranges) -> Inspection:
        """Read back what the kernel has of a service (namespace/name), beside what ports make of it.

        Changes neither the kernel nor what is believed of it, and may be called while another method works.
        """

    async def close(self) -> None:
        """Give up sockets and threads. What is in the kernel stays and works."""
