"""What cp lets a hostile archive write here, and what it reads of one: real files, real and forged archives."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from podctl.copying import Target, end_of_archive, pack
from podctl.failure import Failure
from podctl.verbs.cp import Place, parse_place


def archive(*entries: tuple[str, bytes, bytes | str], mode: int = 0o644, form: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of (name, tar type, content or link target)."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as tar:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, mode
            if isinstance(content, str):
                info.linkname = content
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return made.getvalue()


def unpack(data: bytes, path: Path, base: str = "d") -> list[str]:
    """Unpack an archive and return the warnings."""
    warnings: list[str] = []
    Target(path, base, warnings.append).unpack(io.BytesIO(data).read)
    return warnings


FILE, LINK, SYMLINK, DIRECTORY = tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_files_and_directories_arrive_with_their_bytes(tmp_path: Path, form: int) -> None:
    long = "d/" + "/".join(["deep" * 20] * 3) if form != tarfile.USTAR_FORMAT else "d/deep"
    data = archive(("d", DIRECTORY, b""), ("d/é", FILE, bytes(range(256)) * 9), (long, FILE, b"x"), form=form)
    assert unpack(data, tmp_path / "t") == []
    assert (tmp_path / "t" / "é").read_bytes() == bytes(range(256)) * 9
    assert (tmp_path / "t" / long[2:]).read_bytes() == b"x"


@pytest.mark.parametrize("name", ["d/../../out", "../out", "/etc/out", "other/out", "d/..", "d\\../x/../../out"])
def test_no_name_leaves_the_target(tmp_path: Path, name: str) -> None:
    with pytest.raises(Failure, match="tar contents corrupted"):
        unpack(archive(("d", DIRECTORY, b""), (name, FILE, b"x")), tmp_path / "t")
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_a_symlink_is_left_out_and_nothing_goes_through_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    data = archive(("d/way", SYMLINK, str(outside)), ("d/way/file", FILE, b"x"))
    assert unpack(data, tmp_path / "t") == [f'warning: skipping symlink: "d/way" -> "{outside}"']
    assert not list(outside.iterdir())
    assert (tmp_path / "t" / "way" / "file").read_bytes() == b"x"


def test_a_symlink_that_stands_here_already_is_not_followed(tmp_path: Path) -> None:
    target, outside = tmp_path / "t", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (target / "way").symlink_to(outside)
    with pytest.raises(Failure, match="cannot write"):
        unpack(archive(("d/way/kept", FILE, b"lost")), target)
    (target / "file").symlink_to(outside / "kept")
    unpack(archive(("d/file", FILE, b"new")), target)
    assert (target / "file").read_bytes() == b"new"
    assert (outside / "kept").read_text() == "kept"


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_fifos_are_left_out(tmp_path: Path, kind: bytes) -> None:
    warnings = unpack(archive(("d/node", kind, b""), ("d/file", FILE, b"x")), tmp_path / "t")
    assert len(warnings) == 1
    assert os.listdir(tmp_path / "t") == ["file"]


def test_a_file_keeps_its_execute_bits_and_no_setuid(tmp_path: Path) -> None:
    unpack(archive(("d", FILE, b"x"), mode=0o6755), tmp_path / "t")
    assert stat.S_IMODE((tmp_path / "t").stat().st_mode) == 0o755


def test_a_hard_link_becomes_a_copy_of_what_is_beneath_the_target(tmp_path: Path) -> None:
    unpack(archive(("d/a", FILE, b"content"), ("d/b", LINK, "d/a")), tmp_path / "t")
    assert (tmp_path / "t" / "b").read_bytes() == b"content"
    for elsewhere in ("/etc/passwd", "d/../../../etc/passwd"):
        with pytest.raises(Failure, match="not beneath"):
            unpack(archive(("d/c", LINK, elsewhere)), tmp_path / "t")
    assert sorted(os.listdir(tmp_path / "t")) == ["a", "b"]


def forged(change: Callable[[bytearray], object]) -> bytes:
    """An archive whose first header was changed, with a checksum that fits."""
    data = bytearray(archive(("d/file", FILE, b"x"), form=tarfile.GNU_FORMAT))
    change(data)
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (archive(("d/file", FILE, bytes(5000)))[:2000], "cut off"),
        (forged(lambda data: data.__setitem__(slice(156, 157), b"S")), "sparse"),
        (forged(lambda data: data.__setitem__(slice(124, 136), b"77777777777\0")), "cut off"),
        (forged(lambda data: data.__setitem__(slice(124, 136), b"\xff" * 12)), "wrong number"),
        (forged(lambda data: (data.__setitem__(156, ord("L")), data.__setitem__(slice(124, 136), b"77777777777\0"))),
         "a header of 8589934591 bytes"),
        (archive(("d/file", FILE, b"x")).replace(b"d/file", b"d/fill", 1), "wrong checksum"),
        (os.urandom(4096), "tar contents corrupted"),
        (archive(("d/" + "n" * 100_000, FILE, b"x")), "a header of 100"),
    ],
)  # fmt: skip
def test_a_damaged_archive_is_refused_and_leaves_no_torn_file(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(Failure, match=words):
        unpack(data, tmp_path / "t")
    assert not (tmp_path / "t").exists() or os.listdir(tmp_path / "t") == []


def test_what_is_sent_is_what_stands_here_with_symlinks(tmp_path: Path) -> None:
    source = tmp_path / "s"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_bytes(b"y" * 1000)
    (source / "link").symlink_to("/nowhere")
    os.mkfifo(source / "fifo")
    warnings: list[str] = []
    data = b"".join(pack(source, "name", warnings.append)) + end_of_archive()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["name", "name/link", "name/sub", "name/sub/file"]
        assert tar.getmember("name/link").linkname == "/nowhere"
        assert tar.extractfile("name/sub/file").read() == b"y" * 1000  # type: ignore[union-attr]
    assert len(warnings) == 1
    assert "fifo" in warnings[0]


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("web:/a", Place("/a", "web")),
        ("shop/web:a:b", Place("a:b", "web", "shop")),
        ("./a:b", Place("./a:b")),
        ("/tmp/a:b", Place("/tmp/a:b")),
        ("plain", Place("plain")),
    ],
)
def test_places_are_written_as_for_kubectl(word: str, place: Place) -> None:
    assert parse_place(word) == place


@pytest.mark.parametrize("word", [":/a", "a/b/c:/d", "a/:b"])
def test_what_names_no_pod_is_refused(word: str) -> None:
    with pytest.raises(Failure, match="canonical format"):
        parse_place(word)
