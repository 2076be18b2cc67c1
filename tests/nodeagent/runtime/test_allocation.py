"""Directories whose entries ext4 puts apart, on the filesystems of this machine."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from nodeagent.runtime.allocation import spread


def test_a_directory_is_marked_where_the_filesystem_is_ext4(tmp_path: Path) -> None:
    kind = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], check=True, capture_output=True, text=True).stdout
    if kind.strip() != "ext2/ext3":
        pytest.skip(f"{tmp_path} is on {kind.strip()}, not on ext4")
    spread(tmp_path)
    spread(tmp_path)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        flags = fcntl.ioctl(fd, 0x80086601, bytes(8))  # FS_IOC_GETFLAGS
    finally:
        os.close(fd)
    assert int.from_bytes(flags, "little") & 0x20000, "chattr +T"


def test_elsewhere_nothing_happens() -> None:
    spread(Path("/proc"))
    with pytest.raises(FileNotFoundError):
        spread(Path(f"/proc/{os.getpid()}/none"))
