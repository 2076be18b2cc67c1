"""One subject at one size, in a process of its own: `python -m bench.rules.trial NAME SIZE GROUP cold|whole`.

Prints one line of JSON (see Figures). What it makes, namespaces and rules, ends with it. An exception ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.peers.kubeproxy import replicas
from bench.results import median
from bench.rules import memory
from bench.rules.field import Field
from bench.rules.scale import Rollout, Services, Size, build, parse
from bench.rules.subject import Candidate, Subject, own
from bench.standing import pss

CHANGES, LEAST_CHANGES, CHANGES_SECONDS = 15, 3, 12.0
MANY = 1000
PACKETS = 2000


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds, seconds of CPU (this process, its children and the kernel for them), MB, microseconds."""

    cold: float
    cold_cpu: float
    kernel_megabytes: float | None
    agent_megabytes: float | None
    """None of a replica: kube-proxy's own process is not here."""
    one: float | None = None
    one_worst: float | None = None
    one_cpu: float | None = None
    many: float | None = None
    many_cpu: float | None = None
    packet_p50: float | None = None
    packet_p99: float | None = None
    bare_p50: float | None = None
    """Straight to the endpoint, by way of a node without any rules."""
    bare_p99: float | None = None
    idle_p50: float | None = None
    """Likewise, by way of a node that has the same rules, but no service."""
    idle_p99: float | None = None


def candidates() -> dict[str, Candidate]:
    """All subjects by name; ours, and the replica of the same after each."""
    peers = {candidate.name: candidate for candidate in replicas()}
    mine = [own("nftables"), own("iptables", "nft"), own("iptables", "legacy"), own("ipvs")]
    found = {}
    for candidate in mine:
        found[candidate.name] = candidate
        if peer := peers.get(f"replica of {candidate.name}"):
            found[peer.name] = peer
    return found


async def measure(candidate: Candidate, size: Size, field: Field, group: Path | None, *, whole: bool) -> Figures:
    """All figures, or those of the cold load alone."""
    services = build(size)
    subject = await candidate.open()
    try:
        figures = await _load(subject, services, group, is_ours=not candidate.name.startswith("replica"))
        field.verify(services)
        return await _change(candidate, subject, services, field, figures) if whole else figures
    finally:
        await subject.close()


async def _load(subject: Subject, services: Services, group: Path | None, *, is_ours: bool) -> Figures:
    gc.collect()
    kernel, own = memory.kernel_megabytes(group), pss([os.getpid()])
    await subject.prepare(services)
    took, cpu = await _timed(subject.write)
    gc.collect()
    after = memory.kernel_megabytes(group)
    return Figures(
        took,
        cpu,
        after - kernel if after is not None and kernel is not None else None,
        pss([os.getpid()]) - own if is_ours else None,
    )


async def _change(
    candidate: Candidate, subject: Subject, services: Services, field: Field, figures: Figures
) -> Figures:
    rollout = Rollout(services)
    spans: list[tuple[float, float]] = []
    while len(spans) < CHANGES and (len(spans) < LEAST_CHANGES or sum(took for took, _ in spans) < CHANGES_SECONDS):
        changed = rollout.step(("more", "other", "less")[len(spans) % 3])
        await subject.prepare(rollout.services)
        spans.append(await _timed(subject.write))
        field.verify(rollout.services, changed, 1)
    changed = rollout.step("other", MANY)
    await subject.prepare(rollout.services)
    many, many_cpu = await _timed(subject.write)
    field.verify(rollout.services, changed)
    packets = field.first_packets(rollout.services, PACKETS, candidate)
    return replace(
        figures,
        one=median([took for took, _ in spans]),
        one_worst=max(took for took, _ in spans),
        one_cpu=median([cpu for _, cpu in spans]),
        many=many,
        many_cpu=many_cpu,
        packet_p50=median(packets.service),
        packet_p99=_p99(packets.service),
        bare_p50=median(packets.bare),
        bare_p99=_p99(packets.bare),
        idle_p50=median(packets.idle),
        idle_p99=_p99(packets.idle),
    )


def _p99(values: list[float]) -> float:
    return sorted(values)[len(values) * 99 // 100]


async def _timed(work: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """Seconds by the clock, and of CPU: that of processes which end later as well."""
    others = _children()
    begun, own, children = time.perf_counter(), _on_cpu(resource.RUSAGE_SELF), _on_cpu(resource.RUSAGE_CHILDREN)
    await work()
    took, own = time.perf_counter() - begun, _on_cpu(resource.RUSAGE_SELF) - own
    while _children() - others:
        await asyncio.sleep(0.001)
    return took, own + _on_cpu(resource.RUSAGE_CHILDREN) - children


def _on_cpu(whose: int) -> float:
    usage = resource.getrusage(whose)
    return usage.ru_utime + usage.ru_stime


def _children() -> set[str]:
    """Of all threads."""
    found: set[str] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended
            found.update(path.read_text().split())
    return found


def main() -> int:
    name, size, group, extent = sys.argv[1:]
    path = Path(group) if group else None
    memory.enter(path)
    candidate = candidates()[name]
    if reason := asyncio.run(candidate.missing()):
        print(json.dumps({"skipped": reason}))
        return 0
    field = Field()
    try:
        figures = asyncio.run(measure(candidate, parse(size), field, path, whole=extent == "whole"))
    finally:
        field.close()
    print(json.dumps(asdict(figures)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
