"""Reading CRI logs: parts, tails, times and limits, and rotation of the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.runtime import logs
from nodeagent.runtime.logs import LogOptions
from nodeagent.runtime.rotation import LogRotator, rotate


def stamp(second: int) -> str:
    return f"2026-01-01T00:00:{second:02}.000000500+00:00"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "0.log"
    (tmp_path / "0.log.2").write_text(f"{stamp(1)} stdout F one\n")
    (tmp_path / "0.log.1").write_text(f"{stamp(2)} stdout F two\n{stamp(3)} stdout P thr\n")
    path.write_text(f"{stamp(3)} stderr F err\n{stamp(4)} stdout F ee\n{stamp(5)} stdout F \n{stamp(6)} stdout F six\n")
    return path


async def text(log: Path, **options: object) -> str:
    return b"".join([chunk async for chunk in logs.read(log, LogOptions(**options))]).decode()  # type: ignore[arg-type]


async def test_parts_are_joined_across_streams_and_files(log: Path) -> None:
    assert await text(log) == "one\ntwo\nerr\nthree\n\nsix\n"


async def test_a_line_that_a_rotation_cut_is_whole(tmp_path: Path) -> None:
    (tmp_path / "0.log.1").write_bytes(b"2026-01-01T00:00:00.0+00:00 stdout P be\n")
    log = tmp_path / "0.log"
    log.write_bytes(b"2026-01-01T00:00:01.0+00:00 stdout F gun\n2026-01-01T00:00:02.0+00:00 stdout F then\n")
    assert await text(log) == "begun\nthen\n"


@pytest.mark.parametrize(
    ("tail", "expected"),
    [(0, ""), (1, "six\n"), (2, "\nsix\n"), (4, "err\nee\n\nsix\n"), (5, "two\nerr\nthree\n\nsix\n"), (99, None)],
)
async def test_tail_counts_whole_lines(log: Path, tail: int, expected: str | None) -> None:
    assert await text(log, tail=tail) == (await text(log) if expected is None else expected)


async def test_tail_of_a_long_file_reads_its_end(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text("".join(f"{stamp(1)} stdout F {number} {'x' * 50}\n" for number in range(5000)))
    assert [line.split()[0] for line in (await text(path, tail=3)).splitlines()] == ["4997", "4998", "4999"]


async def test_since_timestamps_and_limit(log: Path) -> None:
    since = logs.seconds("2026-01-01T00:00:05Z")
    assert await text(log, since=since) == "\nsix\n"
    assert await text(log, tail=1, timestamps=True) == "2026-01-01T00:00:06.000000500Z six\n"
    assert await text(log, limit_bytes=6) == "one\ntw"


async def test_who_writes_faster_than_is_read_keeps_nobody_reading(log: Path) -> None:
    read = b""
    async for chunk in logs.read(log, LogOptions()):
        read += chunk
        with log.open("a") as file:
            file.write(f"{stamp(7)} stdout F more\n" * 5000)
        assert len(read) < 5000
    assert read.decode() == "one\ntwo\nerr\nthree\n\nsix\n"


async def test_no_log_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await text(tmp_path / "0.log")


async def test_damaged_entries_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(b"garbage\n\xff\xfe\n" + f"{stamp(1)} stdout F good\n{stamp(2)} stdout F torn".encode())
    assert await text(path) == "good\n"


async def test_what_ends_without_a_newline_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text(f"{stamp(1)} stdout F whole\n{stamp(2)} stdout P un\n{stamp(3)} stdout P finished\n")
    assert await text(path) == "whole\nunfinished"
    shown = f"{stamp(1)} whole\n{stamp(3)} unfinished".replace("+00:00", "Z")
    assert await text(path, timestamps=True) == shown


def test_the_message_of_last_resort_is_the_end_of_the_log(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text("".join(f"{stamp(1)} stdout F line {number}\n" for number in range(100)))
    message = logs.termination_message(path)
    assert message.splitlines()[0] == "line 20"
    assert message.splitlines()[-1] == "line 99"
    path.write_text(f"{stamp(1)} stdout F {'y' * 5000}\n")
    assert len(logs.termination_message(path)) == 2048


def test_rotation_keeps_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    for number in range(8):
        path.write_text(str(number))
        rotate(path, 5)
    path.write_text("8")
    assert [item.read_text() for item in logs.files(path)] == ["4", "5", "6", "7", "8"]


def test_only_full_logs_are_rotated_and_reopened(tmp_path: Path) -> None:
    small, full = tmp_path / "small.log", tmp_path / "full.log"
    small.write_text("x")
    full.write_text("x" * 100)
    reopened: list[str] = []
    rotator = LogRotator(list, reopened.append, limit=100)
    rotator.round([("a", small), ("b", full), ("c", tmp_path / "no")])
    assert reopened == ["b"]
    assert (small.exists(), full.exists(), full.with_name("full.log.1").exists()) == (True, False, True)


def test_a_log_that_was_renamed_by_an_agent_that_died_is_reopened(tmp_path: Path) -> None:
    (tmp_path / "0.log.1").write_text("x")
    reopened: list[str] = []
    LogRotator(list, reopened.append).round([("a", tmp_path / "0.log")])
    assert reopened == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["0.log.1"]
