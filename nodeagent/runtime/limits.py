"""Requests and limits in the kernel's units, for cgroup v1 and v2. Pure. As the kubelet and runc convert."""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.types import Resources

CPU_PERIOD = 100_000
MIN_SHARES, MAX_SHARES = 2, 262_144


def shares(milli: int | None) -> int:
    """CPU weight as v1 has it, for a request in millicores."""
    return min(MAX_SHARES, max(MIN_SHARES, (milli or 0) * 1024 // 1000))


def weight(shares: int) -> int:
    """The same as v2 has it (1 to 10000): the conversion that runc and crun make."""
    return 1 + (shares - MIN_SHARES) * 9999 // (MAX_SHARES - MIN_SHARES)


def quota(milli: int) -> int:
    """Microseconds of CPU in a period; the kernel takes none below a millisecond."""
    return max(1000, milli * CPU_PERIOD // 1000)


def settings(asked: Resources, version: int) -> Iterator[tuple[str, str, str]]:
    """(controller, file, text) of a cgroup that enforces this. None stands for no limit. Pure."""
    cpu, v2 = shares(asked.cpu_request), version == 2
    yield ("cpu", "cpu.weight", str(weight(cpu))) if v2 else ("cpu", "cpu.shares", str(cpu))
    if v2:
        yield "cpu", "cpu.max", f"{quota(asked.cpu_limit) if asked.cpu_limit else 'max'} {CPU_PERIOD}"
    else:
        yield "cpu", "cpu.cfs_period_us", str(CPU_PERIOD)
        yield "cpu", "cpu.cfs_quota_us", str(quota(asked.cpu_limit)) if asked.cpu_limit else "-1"
    memory = str(asked.memory_limit) if asked.memory_limit else ("max" if v2 else "-1")
    yield "memory", "memory.max" if v2 else "memory.limit_in_bytes", memory
    yield "pids", "pids.max", str(asked.pids_limit) if asked.pids_limit else "max"
