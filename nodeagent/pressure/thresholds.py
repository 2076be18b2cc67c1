"""Reservations and eviction thresholds: as they are written in flags, and what they mean in numbers. Pure.

The names, the syntax and the arithmetic are the kubelet's: --system-reserved, --kube-reserved, --eviction-hard, and
allocatable = capacity - reserved - hard thresholds of memory and disk. Fails with ValueError.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from podplane import quantity

MEMORY, DISK, INODES, PIDS = "memory.available", "nodefs.available", "nodefs.inodesFree", "pid.available"
CONDITIONS = {MEMORY: "MemoryPressure", PIDS: "PIDPressure", DISK: "DiskPressure", INODES: "DiskPressure"}
"""What each signal that may have a threshold stands for, in the order in which pressure is relieved."""
RESOURCES = {MEMORY: "memory", PIDS: "pids", DISK: "ephemeral-storage", INODES: "inodes"}
RESERVABLE = ("cpu", "memory", "ephemeral-storage", "pid")
DEFAULT_RESERVED = "cpu=50m,memory=100Mi"
DEFAULT_EVICTION = "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,pid.available<5%"


@dataclass(frozen=True, slots=True)
class Signal:
    """How much is left, of how much: bytes, inodes or process ids."""

    available: int
    capacity: int


@dataclass(frozen=True, slots=True)
class Threshold:
    """`signal` below an amount, or below a share of its capacity."""

    signal: str
    amount: int = 0
    share: Fraction | None = None

    def of(self, capacity: int) -> int:
        """The amount, of this capacity."""
        return self.amount if self.share is None else int(self.share * capacity)

    def is_met(self, signals: Mapping[str, Signal]) -> bool:
        """Whether too little is left. Of what the filesystem does not count (no inodes) there is enough."""
        found = signals[self.signal]
        return found.capacity > 0 and found.available < self.of(found.capacity)


@dataclass(frozen=True, slots=True)
class Reservation:
    """What pods may not have. cpu in millicores, memory and disk in bytes."""

    cpu: int = 0
    memory: int = 0
    disk: int = 0
    pids: int = 0

    def __add__(self, other: Reservation) -> Reservation:
        return Reservation(
            self.cpu + other.cpu, self.memory + other.memory, self.disk + other.disk, self.pids + other.pids
        )


NOTHING = Reservation()


def read_reservation(text: str) -> Reservation:
    """`cpu=100m,memory=200Mi,ephemeral-storage=1Gi,pid=100`; empty: nothing."""
    found: dict[str, int] = {}
    for name, value in _pairs(text, "="):
        if name not in RESERVABLE:
            raise ValueError(f"{name!r} cannot be reserved: there are {', '.join(RESERVABLE)}")
        found[name] = _amount(value, name)
    return Reservation(*(found.get(name, 0) for name in RESERVABLE))


def read_thresholds(text: str) -> tuple[Threshold, ...]:
    """`memory.available<100Mi,nodefs.available<10%`; empty: no threshold, and so no eviction."""
    return tuple(_threshold(signal, value) for signal, value in _pairs(text, "<"))


def _threshold(signal: str, value: str) -> Threshold:
    if signal not in CONDITIONS:
        raise ValueError(f"{signal!r} is no signal of this agent: there are {', '.join(CONDITIONS)}")
    if not value.endswith("%"):
        return Threshold(signal, _amount(value, signal))
    try:
        share = Fraction(value[:-1]) / 100
    except ValueError:
        raise ValueError(f"{signal}: {value!r} is not a percentage") from None
    if not 0 <= share <= 1:
        raise ValueError(f"{signal}: {value!r} must be between 0% and 100%")
    return Threshold(signal, share=share)


def _pairs(text: str, separator: str) -> list[tuple[str, str]]:
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, there, value = part.partition(separator)
        if not there or not name.strip() or not value.strip():
            raise ValueError(f"{part!r} must be NAME{separator}QUANTITY")
        if name.strip() in found:
            raise ValueError(f"{name.strip()!r} is there twice")
        found[name.strip()] = value.strip()
    return list(found.items())


def _amount(text: str, name: str) -> int:
    found = quantity.milli(text) if name == "cpu" else quantity.value(text)
    if found < 0:
        raise ValueError(f"{name}: {text!r} must not be negative")
    return found


def allocatable(
    cpus: int, memory: int, disk: int, pods: int, reserved: Reservation, thresholds: Iterable[Threshold]
) -> dict[str, str]:
    """What the scheduler may give away, by Kubernetes' names. memory, disk: bytes."""
    hard = {each.signal: each for each in thresholds}
    memory -= reserved.memory + (hard[MEMORY].of(memory) if MEMORY in hard else 0)
    disk -= reserved.disk + (hard[DISK].of(disk) if DISK in hard else 0)
    return {
        "cpu": quantity.of_milli(max(0, cpus * 1000 - reserved.cpu)),
        "memory": quantity.of_value(_kibibytes(memory), binary=True),
        "pods": str(pods),
        "ephemeral-storage": quantity.of_value(_kibibytes(disk), binary=True),
    }


def _kibibytes(amount: int) -> int:
    return max(0, amount) // 1024 * 1024
