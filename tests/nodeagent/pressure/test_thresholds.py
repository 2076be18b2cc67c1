"""Reservations and thresholds as flags have them, allocatable, and how long a condition stays."""

from __future__ import annotations

import pytest

from nodeagent.config import parse
from nodeagent.pressure.hold import Hold
from nodeagent.pressure.thresholds import (
    DISK,
    INODES,
    MEMORY,
    PIDS,
    Reservation,
    Signal,
    allocatable,
    read_reservation,
    read_thresholds,
)

GI = 1 << 30


def signals(memory: int = 8 * GI, disk: int = 80 * GI, inodes: int = 1000, pids: int = 30_000) -> dict[str, Signal]:
    return {
        MEMORY: Signal(memory, 16 * GI),
        DISK: Signal(disk, 100 * GI),
        INODES: Signal(inodes, 1000),
        PIDS: Signal(pids, 32_768),
    }


def test_reservations_add_up_and_leave_what_is_allocatable() -> None:
    config = parse(["run", "--system-reserved", "cpu=500m,memory=1Gi,pid=1000", "--kube-reserved", "memory=512Mi"], {})
    assert config.reserved == Reservation(500, GI + GI // 2, 0, 1000)
    left = allocatable(4, 16 * GI, 100 * GI, 110, config.reserved, config.eviction_hard)
    assert left == {"cpu": "3500m", "memory": "14748Mi", "pods": "110", "ephemeral-storage": "90Gi"}


def test_by_default_the_agent_keeps_a_little_for_itself() -> None:
    config = parse(["run"], {})
    assert config.reserved == Reservation(50, 100 << 20)
    assert [each.signal for each in config.eviction_hard] == [MEMORY, DISK, INODES, PIDS]
    assert config.pressure_transition == 300


def test_a_flag_replaces_the_default_thresholds_and_an_empty_one_has_none() -> None:
    assert [each.signal for each in parse(["run", "--eviction-hard", "nodefs.available<1Gi"], {}).eviction_hard] == [
        DISK
    ]
    assert parse(["run", "--eviction-hard", ""], {}).eviction_hard == ()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--system-reserved", "gpu=1"], "'gpu' cannot be reserved: there are cpu, memory, ephemeral-storage, pid"),
        (["--system-reserved", "cpu"], "'cpu' must be NAME=QUANTITY"),
        (["--system-reserved", "cpu=1,cpu=2"], "'cpu' is there twice"),
        (["--kube-reserved", "memory=-1"], "must not be negative"),
        (["--eviction-hard", "imagefs.available<1Gi"], "'imagefs.available' is no signal of this agent"),
        (["--eviction-hard", "memory.available=1Gi"], "must be NAME<QUANTITY"),
        (["--eviction-hard", "memory.available<x%"], "'x%' is not a percentage"),
        (["--eviction-hard", "memory.available<101%"], "between 0% and 100%"),
        (["--eviction-pressure-transition-period=-1s"], "must not be negative"),
        (["--pod-pids-limit", "0"], "must be -1, or from 1 to 4194304"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_reason(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(["run", *argv], {})
    assert words in capsys.readouterr().err


def test_thresholds_are_amounts_or_shares_and_memory_is_relieved_first() -> None:
    hold = Hold(
        read_thresholds("nodefs.available<10%,pid.available<100,memory.available<1Gi,nodefs.inodesFree<5%"), 300
    )
    assert hold.met(signals()) == []
    assert [each.signal for each in hold.met(signals(disk=9 * GI))] == [DISK]
    assert hold.met(signals(disk=10 * GI)) == []
    short = signals(memory=GI - 1, disk=9 * GI, inodes=49, pids=99)
    assert [each.signal for each in hold.met(short)] == [MEMORY, PIDS, DISK, INODES]
    without_inodes = signals() | {INODES: Signal(0, 0)}
    assert hold.met(without_inodes) == []


def test_a_condition_comes_at_once_and_stays_for_its_time() -> None:
    hold = Hold(read_thresholds("memory.available<1Gi"), 300)
    low = hold.met(signals(memory=0))
    assert hold.conditions([], 100.0) == frozenset()
    assert hold.conditions(low, 101.0) == {"MemoryPressure"}
    assert hold.conditions([], 400.9) == {"MemoryPressure"}
    assert hold.conditions([], 401.0) == frozenset()
    assert hold.conditions(low, 500.0, also=["DiskPressure"]) == {"MemoryPressure", "DiskPressure"}
    at_once = Hold(read_thresholds("memory.available<1Gi"), 0)
    assert at_once.conditions(low, 1.0) == {"MemoryPressure"}
    assert at_once.conditions([], 2.0) == frozenset()


def test_nothing_is_reserved_by_an_empty_text() -> None:
    assert read_reservation("") == Reservation()
    assert read_thresholds(" ") == ()
