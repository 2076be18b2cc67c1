"""Records one after the other in a file: length, checksum, payload. What a crash has torn off is seen by its checksum.

Owns the form and the append. Never knows what a payload is. Writing fails with OSError, and leaves what was there.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from podplane.files import write_all

_HEAD = struct.Struct("<II")
_LARGEST = 16 * 1024 * 1024


def record(payload: bytes) -> bytes:
    """One as it stands in the file. payload: not empty."""
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(offset after it, payload) of every whole record, up to the first that is torn or corrupt."""
    at = 0
    while len(data) - at >= _HEAD.size:
        length, checksum = _HEAD.unpack_from(data, at)
        payload = data[at + _HEAD.size : at + _HEAD.size + length]
        # Zeros are what a power cut may leave of a write, and their checksum is right.
        if not 0 < length <= _LARGEST or len(payload) < length or zlib.crc32(payload) != checksum:
            return
        at += _HEAD.size + length
        yield at, payload


def append(path: Path, data: bytes) -> None:
    """Put records at the end of a file, all or none."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        try:
            write_all(descriptor, data)
        except OSError:
            os.ftruncate(descriptor, size)  # a half record must not hide the later ones
            raise
    finally:
        os.close(descriptor)
