"""Log bytes as whole lines."""

from __future__ import annotations

from podctl.logstreams import lines


def test_lines_are_whole_whatever_the_chunks_are() -> None:
    chunks = [b"on", b"e\ntwo\nth", b"", b"ree\n", b"rest"]
    assert b"".join(lines(iter(chunks), b"")) == b"one\ntwo\nthree\nrest"


def test_every_line_begins_with_the_prefix() -> None:
    found = list(lines(iter([b"a\nb", b"c\n", b"d"]), b"[pod/web/app] "))
    assert found == [b"[pod/web/app] a\n", b"[pod/web/app] bc\n", b"[pod/web/app] d"]


def test_bytes_that_are_no_text_come_through() -> None:
    assert b"".join(lines(iter([b"\xff\xfe\n"]), b"> ")) == b"> \xff\xfe\n"
