"""Reads a tar stream that nobody vouches for: ustar, pax and GNU headers, each bounded. Pure.

Gives members and their bytes, in order; what a member may do to a filesystem is the caller's to decide. Headers that
Python's tarfile would read whole, whatever size they claim, are refused beyond LONGEST; so are sparse members, of
which a few bytes stand for any number. Fails with Damaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

LONGEST = 1 << 16
"""Bytes of a name or of extended headers."""
_BLOCK = 512
_CHUNK = 256 << 10
_KINDS = {b"\0": "file", b"0": "file", b"7": "file", b"1": "link", b"2": "symlink", b"5": "directory",
          b"3": "device", b"4": "device", b"6": "fifo"}  # fmt: skip
_LONG_NAME, _LONG_LINK, _PAX, _GLOBAL = b"L", b"K", b"x", b"g"


class Damaged(Exception):
    """No tar stream, a cut one, or one that asks for more than is sane."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member. kind: file, link (to an earlier member), symlink, directory, device, fifo or unknown."""

    name: str
    kind: str
    size: int
    mode: int
    target: str
    chunks: Iterator[bytes]
    """A file's bytes; what is not taken is passed over."""


def members(read: Callable[[int], bytes]) -> Iterator[Member]:
    """Every member. `read(n)` gives at most n bytes, none at the end."""
    extended: dict[str, str] = {}
    while (block := _exactly(read, _BLOCK)).strip(b"\0"):
        kind, size = block[156:157], _number(block[124:136])
        _check(block)
        if kind in (_LONG_NAME, _LONG_LINK, _PAX, _GLOBAL):
            extended |= _extension(kind, _content(read, size))
            continue
        made = _member(block, kind, size, extended, read)
        yield made
        for _ in made.chunks:
            pass
        _exactly(read, -made.size % _BLOCK)
        extended = {}
    while read(_CHUNK):  # a sender that is not heard to its end would be told so by a signal
        pass


def _member(block: bytes, kind: bytes, size: int, extended: dict[str, str], read: Callable[[int], bytes]) -> Member:
    if any(key.startswith("GNU.sparse") for key in extended) or kind == b"S":
        raise Damaged("a sparse member")
    name = _text(block[0:100])
    if block[257:263] == b"ustar\0" and block[345] != 0:
        name = f"{_text(block[345:500])}/{name}"
    name = extended.get("path", name)
    word = _KINDS.get(kind, "unknown")
    if word == "file" and name.endswith("/"):
        word = "directory"
    if word not in ("file", "unknown"):
        size = 0
    elif "size" in extended:
        size = _decimal(extended["size"])
    target = extended.get("linkpath", _text(block[157:257]))
    return Member(name, word, size, _number(block[100:108]) & 0o7777, target, _pieces(read, size))


def _pieces(read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    while size:
        data = read(min(size, _CHUNK))
        if not data:
            raise Damaged("the archive is cut off")
        size -= len(data)
        yield data


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    return b"".join(_pieces(read, size))


def _content(read: Callable[[int], bytes], size: int) -> bytes:
    if size > LONGEST:
        raise Damaged(f"a header of {size} bytes")
    data = _exactly(read, size)
    _exactly(read, -size % _BLOCK)
    return data


def _extension(kind: bytes, data: bytes) -> dict[str, str]:
    if kind == _LONG_NAME:
        return {"path": _text(data)}
    if kind == _LONG_LINK:
        return {"linkpath": _text(data)}
    found: dict[str, str] = {}
    while data:
        digits, _, rest = data.partition(b" ")
        length = _decimal(digits.decode(errors="replace"))
        record = rest[: length - len(digits) - 1]
        if not record.endswith(b"\n") or len(digits) + 1 + len(record) != length:
            raise Damaged("a damaged extended header")
        key, _, value = record[:-1].partition(b"=")
        found[key.decode(errors="replace")] = _text(value)
        data = data[length:]
    # Global headers hold comments and times in practice; what they say of every name is not believed.
    return {} if kind == _GLOBAL else found


def _check(block: bytes) -> None:
    told = _number(block[148:156])
    if told != sum(block[:148]) + sum(block[156:]) + 8 * 32:
        raise Damaged("a header with a wrong checksum")


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        value = int.from_bytes(field[1:], "big") if field[0] == 0x80 else -1
    else:
        text = field.strip(b" \0").decode(errors="replace")
        value = int(text, 8) if text and set(text) <= set("01234567") else -1 if text else 0
    if value < 0 or value >= 1 << 63:
        raise Damaged("a header with a wrong number")
    return value


def _decimal(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Damaged("a header with a wrong number")
    return int(text)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")
