"""Virtual servers as the kernel has them, and what turns them into those that are wanted. Pure.

A real server that is wanted no more gets weight 0 while it has connections: it takes no new one, and those it has go
on. It is removed when the last one is gone, or after a bound (drained() below). One of UDP, which has no end of a
connection to wait for, goes at once.
Source: the text of /proc/net/ip_vs, which tells all of it at once: net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_info_seq_show.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from nodeagent.proxy.ipvs.plan import Front, Server, Target

PATH = "/proc/thread-self/net/ip_vs"
DRAIN_BOUND = 900.0
"""Seconds that connections may hold a real server that is wanted no more; kube-proxy's."""
_NAT = "Masq"


@dataclass(frozen=True, slots=True)
class Real:
    """A real server in the kernel. connections: active and others."""

    weight: int
    connections: int = 0
    forwarding: str = _NAT


@dataclass(frozen=True, slots=True)
class Virtual:
    """A virtual server in the kernel."""

    scheduler: str
    affinity: int
    reals: Mapping[Target, Real]


Standing = dict[Front, Virtual]


@dataclass(frozen=True, slots=True)
class PutServer:
    """Make the virtual server, or give it these settings."""

    front: Front
    scheduler: str
    affinity: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class DeleteServer:
    front: Front


@dataclass(frozen=True, slots=True)
class PutReal:
    front: Front
    target: Target
    weight: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class DeleteReal:
    front: Front
    target: Target


Step = PutServer | DeleteServer | PutReal | DeleteReal


def parse(text: str, hertz: int) -> Standing:
    """Read /proc/net/ip_vs. Lines of what we never make (IPv6, SCTP) are passed over.

    hertz: ticks a second of the kernel, in which that file alone tells the time.
    """
    found: Standing = {}
    reals: dict[Target, Real] = {}
    for line in text.splitlines()[3:]:
        words = line.split()
        if words[0] == "->":
            if "[" not in words[1]:
                weight, active, inactive = (int(word) for word in words[3:6])
                reals[_address(words[1])] = Real(weight, active + inactive, words[2])
        else:
            reals = {}
            if (front := _front(words)) is not None:
                found[front] = Virtual(words[2], _affinity(words) // hertz, reals)
    return found


def _front(words: list[str]) -> Front | None:
    if words[0] == "FWM":
        return Front(mark=int(words[1], 16)) if "IPv6" not in words else None
    if words[0] not in ("TCP", "UDP") or "[" in words[1]:
        return None
    return Front(words[0].lower(), *_address(words[1]))


def _affinity(words: list[str]) -> int:
    return int(words[words.index("persistent") + 1]) if "persistent" in words else 0


def _address(text: str) -> Target:
    address, _, port = text.partition(":")
    return str(IPv4Address(int(address, 16))), int(port, 16)


def additions(standing: Standing, wanted: Mapping[Front, Server]) -> Iterator[Step]:
    """What must be there before packets are led to it."""
    for front, server in wanted.items():
        if server.targets:
            yield from _put(front, server, standing.get(front))


def _put(front: Front, server: Server, there: Virtual | None) -> Iterator[Step]:
    if there is None or (there.scheduler, there.affinity) != (server.scheduler, server.affinity):
        yield PutServer(front, server.scheduler, server.affinity, there is None)
    reals: Mapping[Target, Real] = {} if there is None else there.reals
    for target in server.targets:
        real = reals.get(target)
        if real is None:
            yield PutReal(front, target, 1, True)
        elif real.weight != 1 or real.forwarding != _NAT:
            yield PutReal(front, target, 1, False)


def removals(
    standing: Standing, wanted: Mapping[Front, Server], since: Mapping[tuple[Front, Target], float], now: float
) -> Iterator[Step]:
    """What must go after packets are led elsewhere. since: when each real server was first seen to be leaving."""
    for front, virtual in standing.items():
        if front not in wanted:
            yield DeleteServer(front)
            continue
        leaving = {target: real for target, real in virtual.reals.items() if target not in wanted[front].targets}
        done = [
            target
            for target, real in leaving.items()
            if _is_drained(front, real, now - since.get((front, target), now))
        ]
        if len(done) == len(virtual.reals):
            yield DeleteServer(front)
            continue
        yield from (DeleteReal(front, target) for target in done)
        yield from (
            PutReal(front, target, 0, False) for target, real in leaving.items() if real.weight and target not in done
        )


def leaving(standing: Standing, wanted: Mapping[Front, Server]) -> set[tuple[Front, Target]]:
    """The real servers that are wanted no more and have weight 0."""
    return {
        (front, target)
        for front, virtual in standing.items()
        for target, real in virtual.reals.items()
        if real.weight == 0 and front in wanted and target not in wanted[front].targets
    }


def after(standing: Standing, steps: Iterable[Step]) -> Standing:
    """What stands after these steps. Whether a real server has connections is not known then: it may have."""
    made = dict(standing)
    for step in steps:
        front = step.front
        if isinstance(step, DeleteServer):
            made.pop(front, None)
            continue
        old = made.get(front) or Virtual("", 0, {})
        if isinstance(step, PutServer):
            made[front] = Virtual(step.scheduler, step.affinity, old.reals)
        elif isinstance(step, PutReal):
            made[front] = replace(old, reals={**old.reals, step.target: Real(step.weight, 1)})
        else:
            made[front] = replace(old, reals={key: real for key, real in old.reals.items() if key != step.target})
    return made


def _is_drained(front: Front, real: Real, seconds: float) -> bool:
    return not real.connections or front.is_udp or seconds >= DRAIN_BOUND
