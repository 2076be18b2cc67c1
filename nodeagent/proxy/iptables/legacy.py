"""The legacy iptables' tables, as the kernel tells of them by socket options: no process, and microseconds.

Asks only for tables that exist in this namespace: asking for another makes it. Never changes any. Fails with OSError.
Source: linux/netfilter_ipv4/ip_tables.h.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

_IN_USE = Path("/proc/thread-self/net/ip_tables_names")
_GET_INFO, _GET_ENTRIES = 64, 65
_INFO = struct.Struct("=32s13I")
"""struct ipt_getinfo: name, valid_hooks, hook_entry[5], underflow[5], num_entries, size."""
_UNDERFLOW = 7
_FORWARD = 2
_ENTRIES = 40
"""Of struct ipt_get_entries: where the entries begin."""
_TARGET_OFFSET, _VERDICT = 88, 32
"""Of struct ipt_entry: where its target's offset is; of that target: where its verdict is."""
_DROP = -1
"""Verdicts are stored as -verdict - 1."""
_TRIES = 5


def tables() -> Sequence[str]:
    """Those that exist in this namespace."""
    try:
        return _IN_USE.read_text().split()
    except FileNotFoundError:
        return ()


def shape(names: Sequence[str]) -> tuple[int, ...]:
    """The sizes and shapes of those of the tables that exist."""
    with _socket() as connection:
        return tuple(number for name in tables() if name in names for number in _info(connection, name))


def drops_forwarded() -> bool:
    """Whether the filter table exists and the policy of its chain FORWARD is DROP."""
    if "filter" not in tables():
        return False
    with _socket() as connection:
        for tries in range(_TRIES, 0, -1):
            info = _info(connection, "filter")
            size, policy = info[-1], info[_UNDERFLOW - 1 + _FORWARD]
            request = (_named("filter") + struct.pack("=I", size)).ljust(_ENTRIES + size, b"\0")
            try:
                entries = _ask(connection, _GET_ENTRIES, request)[_ENTRIES:]
                break
            except OSError as error:
                if error.errno != errno.EAGAIN or tries == 1:  # it has another size meanwhile
                    raise
    # The chain's last rule is its policy.
    (target,) = struct.unpack_from("=H", entries, policy + _TARGET_OFFSET)
    (verdict,) = struct.unpack_from("=i", entries, policy + target + _VERDICT)
    return bool(verdict == _DROP)


def _socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)


def _named(table: str) -> bytes:
    return table.encode().ljust(32, b"\0")


def _info(connection: socket.socket, table: str) -> tuple[int, ...]:
    """Without the name."""
    return _INFO.unpack(_ask(connection, _GET_INFO, _named(table).ljust(_INFO.size, b"\0")))[1:]


def _ask(connection: socket.socket, option: int, request: bytes) -> bytes:
    # socket.getsockopt passes no input, and these options read the table's name from the buffer.
    buffer = ctypes.create_string_buffer(request, len(request))
    length = ctypes.c_uint32(len(request))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.getsockopt(connection.fileno(), socket.SOL_IP, option, buffer, ctypes.byref(length)) != 0:
        raise OSError(ctypes.get_errno(), "cannot read the legacy iptables' tables")
    return buffer.raw
