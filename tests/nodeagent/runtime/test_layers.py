"""Unpacking layers: whiteouts, ownership, and hostile archives."""

from __future__ import annotations

import gzip
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from nodeagent.runtime import layers
from nodeagent.runtime.layers import Refused
from tests.support.archives import Entry, device, digest, directory, file, link, tar


def unpack(base: Path, entries: list[Entry], *, blob: bytes | None = None) -> Path:
    data = tar(entries)
    packed = gzip.compress(data) if blob is None else blob
    (base / "blob").write_bytes(packed)
    layers.unpack(base / "blob", digest(packed), digest(data), base / "layer")
    return base / "layer"


def test_whiteouts_become_overlays_own(tmp_path: Path) -> None:
    made = unpack(tmp_path, [directory("d"), file("d/.wh..wh..opq"), file("d/new", b"n"), file("e/.wh.old"),
                             file(".wh.top")])  # fmt: skip
    assert os.getxattr(made / "d", "trusted.overlay.opaque") == b"y"
    for path in (made / "e/old", made / "top"):
        info = path.lstat()
        assert stat.S_ISCHR(info.st_mode)
        assert info.st_rdev == 0
    assert [path.name for path in made.rglob(".wh.*")] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blob", "layer"]


def test_modes_owners_times_and_links_are_kept(tmp_path: Path) -> None:
    owned = file("tool", b"x", 0o4755)
    owned[0].uid, owned[0].gid, owned[0].mtime = 1234, 1235, 1_000_000
    made = unpack(tmp_path, [owned, link("hard", "tool", tarfile.LNKTYPE), link("soft", "/etc/passwd")])
    info = (made / "tool").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime) == (0o4755, 1234, 1235, 1_000_000)
    assert (made / "hard").stat().st_ino == info.st_ino
    assert os.readlink(made / "soft") == "/etc/passwd"


def test_an_uncompressed_layer_and_one_of_several_members(tmp_path: Path) -> None:
    data = tar([file("a", b"1" * 5000)])
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    assert (unpack(tmp_path / "one", [file("a", b"1" * 5000)], blob=data) / "a").stat().st_size == 5000
    members = gzip.compress(data[:600]) + gzip.compress(data[600:])
    assert (unpack(tmp_path / "two", [file("a", b"1" * 5000)], blob=members) / "a").stat().st_size == 5000


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([file("../out", b"x")], "leaves the layer"),
        ([file("a/../../out", b"x")], "leaves the layer"),
        ([link("l", "/"), file("l/out", b"x")], "leads through the symlink"),
        ([link("l", "../.."), file("l/out", b"x")], "leads through the symlink"),
        ([link("h", "../../etc/passwd", tarfile.LNKTYPE)], "leaves the layer"),
        ([link("l", "/etc"), file("l/.wh.passwd")], "leads through the symlink"),
        ([link("l", "/etc"), link("h", "l/passwd", tarfile.LNKTYPE)], "leads through the symlink"),
    ],
)
def test_what_would_leave_is_refused(tmp_path: Path, entries: list[Entry], words: str) -> None:
    with pytest.raises(Refused, match=words):
        unpack(tmp_path, entries)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blob"]


def test_an_absolute_name_stays_inside(tmp_path: Path) -> None:
    made = unpack(tmp_path, [file("/etc/evil", b"x")])
    assert (made / "etc/evil").read_bytes() == b"x"
    assert not Path("/etc/evil").exists()


def test_wrong_digests_and_caps_are_refused(tmp_path: Path) -> None:
    data = tar([file("a", b"1"), file("b", b"2")])
    blob = tmp_path / "blob"
    blob.write_bytes(data)
    with pytest.raises(Refused, match="layer digest is"):
        layers.check(blob, digest(b""))
    with pytest.raises(Refused, match="diff id is"):
        layers.inflate(blob, digest(b""), tmp_path / "t")
    with pytest.raises(Refused, match="larger than 100 bytes"):
        layers.inflate(blob, digest(data), tmp_path / "t", limit=100)
    with pytest.raises(Refused, match="more than 1 entries"):
        layers.look(blob, limit=1)


def test_a_bomb_is_stopped_at_its_cap_and_leaves_nothing(tmp_path: Path) -> None:
    data = tar([file("zeros", bytes(64 << 20))])
    packed = gzip.compress(data)
    assert len(packed) < 100_000
    (tmp_path / "blob").write_bytes(packed)
    with pytest.raises(Refused, match="larger than 1048576 bytes"):
        layers.unpack(tmp_path / "blob", digest(packed), digest(data), tmp_path / "layer", 1 << 20)
    assert [path.name for path in tmp_path.iterdir()] == ["blob"]


def test_a_layer_compressed_with_zstd(tmp_path: Path) -> None:
    entries = [file("a", b"1" * 5000)]
    packed = subprocess.run(["zstd", "-c"], input=tar(entries), check=True, capture_output=True).stdout
    assert (unpack(tmp_path, entries, blob=packed) / "a").stat().st_size == 5000
    (tmp_path / "broken").mkdir()
    with pytest.raises(Refused, match=r"diff id|zstd ended"):
        unpack(tmp_path / "broken", entries, blob=packed[:-20])


def test_device_nodes_are_refused_but_below_dev_where_none_appears(tmp_path: Path) -> None:
    made = unpack(tmp_path, [directory("dev"), device("dev/null", 1, 3), file("dev/note", b"x")])
    assert [path.name for path in (made / "dev").iterdir()] == ["note"]
    for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        with pytest.raises(Refused, match="device node 'disk'"):
            unpack(tmp_path, [device("disk", 8, 0, kind)])


def test_overlay_attributes_of_a_layer_are_not_taken_over(tmp_path: Path) -> None:
    hidden = directory("d")
    hidden[0].pax_headers = {"SCHILY.xattr.trusted.overlay.redirect": "/etc"}
    made = unpack(tmp_path, [hidden])
    assert os.listxattr(made / "d") == []
