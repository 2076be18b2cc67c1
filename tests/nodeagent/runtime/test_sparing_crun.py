"""crun's program from a sealed memory file, and its fifo written to without it."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from nodeagent.runtime import crun
from nodeagent.runtime.process import run


def test_begin_writes_one_byte_to_who_waits_and_takes_the_fifo_away(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "exec.fifo")
    waiting = os.open(tmp_path / "exec.fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert crun.begin(tmp_path)
        assert os.read(waiting, 10) == b"\0"
        assert not (tmp_path / "exec.fifo").exists()
    finally:
        os.close(waiting)


def test_begin_leaves_it_to_crun_where_nobody_waits(tmp_path: Path) -> None:
    assert not crun.begin(tmp_path)
    os.mkfifo(tmp_path / "exec.fifo")
    assert not crun.begin(tmp_path)
    assert (tmp_path / "exec.fifo").exists()


async def test_a_sealed_copy_runs_and_cannot_be_changed() -> None:
    program = shutil.which("crun")
    if program is None:
        pytest.skip("crun is not installed")
    fd = await crun.sealed(program)
    assert fd is not None
    try:
        assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == 0xF
        with pytest.raises(PermissionError):
            os.write(fd, b"x")
        done = await run([crun.path(fd), "--version"], deadline=10, pass_fds=[fd])
        assert done.out.startswith("crun version")
    finally:
        os.close(fd)


async def test_a_program_that_does_not_run_is_not_used(tmp_path: Path) -> None:
    program = tmp_path / "crun"
    program.write_bytes(b"no program")
    before = os.listdir("/proc/self/fd")
    assert await crun.sealed(str(program)) is None
    assert len(os.listdir("/proc/self/fd")) == len(before)
