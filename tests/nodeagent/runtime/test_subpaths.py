"""Sub-paths on the real kernel: what they reach, what they make, and that nobody leads them out of their volume."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent import syscalls
from nodeagent.runtime.subpaths import SubPaths, parts_of

UID = "0b5c4f1e-subpaths"


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    made = tmp_path / "volume"
    made.mkdir()
    made.chmod(0o777)
    return made


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    made = tmp_path / "outside"
    made.mkdir()
    (made / "secret").write_text("the node's own")
    return made


@pytest.fixture
def subpaths(tmp_path: Path) -> Iterator[SubPaths]:
    run = tmp_path / "run"
    run.mkdir()
    syscalls.mount("tmpfs", run, "tmpfs", 0, "mode=700")
    made = SubPaths(run)
    yield made
    made.remove(UID)
    assert str(run / "subpaths") not in Path("/proc/self/mountinfo").read_text()
    assert list((run / "subpaths").glob("*")) == []
    syscalls.umount2(run)


def test_a_file_and_a_directory_are_pinned(subpaths: SubPaths, volume: Path) -> None:
    (volume / "conf.d").mkdir()
    (volume / "conf.d/a.conf").write_text("a")
    assert subpaths.pin(UID, "app", 0, volume, "conf.d/a.conf").read_text() == "a"
    assert os.listdir(subpaths.pin(UID, "app", 1, volume, "conf.d")) == ["a.conf"]
    assert os.listdir(subpaths.pin(UID, "app", 2, volume, "./")) == ["conf.d"]


def test_what_is_missing_is_made_with_the_mode_and_group_of_the_volume(subpaths: SubPaths, volume: Path) -> None:
    os.chown(volume, -1, 77)
    volume.chmod(0o2775)
    before = os.umask(0o077)
    try:
        pinned = subpaths.pin(UID, "app", 0, volume, "a//b/./c")
    finally:
        os.umask(before)
    for path in (volume / "a", volume / "a/b", volume / "a/b/c", pinned):
        found = path.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o2775, 77), path


def test_what_exists_keeps_its_mode(subpaths: SubPaths, volume: Path) -> None:
    (volume / "mine").mkdir(mode=0o700)
    subpaths.pin(UID, "app", 0, volume, "mine/deep")
    assert stat.S_IMODE((volume / "mine").stat().st_mode) == 0o700
    assert stat.S_IMODE((volume / "mine/deep").stat().st_mode) == 0o777


def test_links_inside_the_volume_are_followed(subpaths: SubPaths, volume: Path) -> None:
    (volume / "..2026").mkdir()
    (volume / "..2026/key").write_text("v")
    (volume / "..data").symlink_to("..2026")
    (volume / "key").symlink_to("..data/key")
    assert subpaths.pin(UID, "app", 0, volume, "key").read_text() == "v"


@pytest.mark.parametrize("path", ["../outside", "a/../../outside", "/etc", "a\0b"])
def test_a_path_that_leaves_is_refused_before_it_is_walked(subpaths: SubPaths, volume: Path, path: str) -> None:
    with pytest.raises(ValueError, match="must not"):
        subpaths.pin(UID, "app", 0, volume, path)
    assert os.listdir(volume) == []


@pytest.mark.parametrize("link", ["{outside}", "../outside", "/", "up/../../outside", "/proc/self/root", "dangling"])
@pytest.mark.parametrize("path", ["link", "link/secret", "link/made/here"])
def test_a_link_out_of_the_volume_is_refused(
    subpaths: SubPaths, volume: Path, outside: Path, link: str, path: str
) -> None:
    (volume / "up").mkdir()
    (volume / "link").symlink_to(link.format(outside=outside))
    with pytest.raises(OSError):
        subpaths.pin(UID, "app", 0, volume, path)
    assert os.listdir(outside) == ["secret"]
    assert sorted(os.listdir(volume)) == ["link", "up"]


def test_a_file_in_the_way_is_refused(subpaths: SubPaths, volume: Path) -> None:
    (volume / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        subpaths.pin(UID, "app", 0, volume, "file/below")


def test_a_link_swapped_in_after_pinning_changes_nothing(subpaths: SubPaths, volume: Path, outside: Path) -> None:
    (volume / "logs").mkdir()
    pinned = subpaths.pin(UID, "app", 0, volume, "logs")
    (volume / "logs").rename(volume / "aside")
    (volume / "logs").symlink_to(outside)
    (pinned / "written").write_text("")
    assert os.listdir(volume / "aside") == ["written"]
    assert os.listdir(outside) == ["secret"]


SWAP = """
import ctypes, sys
exchange = ctypes.CDLL(None).renameat2
real, link = (path.encode() for path in sys.argv[1:])
print(flush=True)
while exchange(-100, real, -100, link, 2) == 0:
    pass
"""


def test_a_race_of_links_never_leads_out(subpaths: SubPaths, volume: Path, outside: Path) -> None:
    """A container swaps directory and symlink as fast as it can while its sub-path is looked up and made."""
    (volume / "real").mkdir()
    (volume / "link").symlink_to("../outside")
    argv = [sys.executable, "-c", SWAP, str(volume / "real"), str(volume / "link")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as hostile:
        assert hostile.stdout is not None
        hostile.stdout.readline()
        pinned = refused = 0
        due = time.monotonic() + 10
        while time.monotonic() < due and min(pinned, refused) < 500:
            try:
                found = subpaths.pin(UID, "app", 0, volume, f"real/made/{pinned}")
            except OSError:
                refused += 1
            else:
                pinned += 1
                assert os.listdir(found) == []
            assert os.listdir(outside) == ["secret"]
        assert hostile.poll() is None
        hostile.kill()
    assert min(pinned, refused) > 0, (pinned, refused)


def test_a_pin_is_replaced_also_by_one_of_another_kind(subpaths: SubPaths, volume: Path) -> None:
    (volume / "file").write_text("f")
    assert subpaths.pin(UID, "app", 0, volume, "dir").is_dir()
    assert subpaths.pin(UID, "app", 0, volume, "file").read_text() == "f"
    assert subpaths.pin(UID, "app", 0, volume, "dir").is_dir()


def test_removing_pins_deletes_nothing_that_they_pinned(subpaths: SubPaths, volume: Path) -> None:
    (volume / "data").mkdir()
    (volume / "data/file").write_text("kept")
    subpaths.pin(UID, "app", 0, volume, "data")
    subpaths.pin(UID, "init", 3, volume, "data/file")
    subpaths.remove(UID)
    subpaths.remove(UID)
    assert (volume / "data/file").read_text() == "kept"


def test_parts_are_names() -> None:
    assert parts_of("a//b/./..data/") == ["a", "b", "..data"]
