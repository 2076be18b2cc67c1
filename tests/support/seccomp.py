"""What a seccomp program answers, as the kernel would run it."""

from __future__ import annotations

import struct
from collections.abc import Sequence


def answer(program: bytes, architecture: int, number: int, arguments: Sequence[int] = ()) -> int:
    """The value returned for a system call; `arguments` are six numbers of 64 bits, 0 where they are not given."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *[*arguments, 0, 0, 0, 0, 0, 0][:6])
    code: list[tuple[int, int, int, int]] = list(struct.iter_unpack("=HBBI", program))
    loaded, at = 0, 0
    while True:
        operation, then, otherwise, constant = code[at]
        at += 1
        match operation:
            case 0x20:
                (loaded,) = struct.unpack_from("=I", data, constant)
            case 0x54:
                loaded &= constant
            case 0x05:
                at += constant
            case 0x06:
                return constant
            case 0x15:
                at += then if loaded == constant else otherwise
            case 0x25:
                at += then if loaded > constant else otherwise
            case 0x35:
                at += then if loaded >= constant else otherwise
            case 0x45:
                at += then if loaded & constant else otherwise
            case _:
                raise AssertionError(f"no such operation: {operation:#x}")
