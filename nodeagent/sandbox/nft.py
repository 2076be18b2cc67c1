"""The pod network's nftables rules in the kernel: written by `nft`, looked at by netlink.

Owns the tables of guard.py, whole; never reads or changes another. A look costs microseconds and no process: it
compares the rules that the kernel has with those that it had right after they were written. Blocks: for threads.
Fails with OSError, in nft's own words.
"""

from __future__ import annotations

import errno
import struct
import subprocess

from nodeagent import netlink
from nodeagent.sandbox import guard

_DEADLINE = 20.0
_NETLINK_NETFILTER = 12
_GET_RULE = 10 << 8 | 7
_RULE_TABLE = 1
_FAMILY = {"bridge": 7, "ip": 2}
_HEADER = struct.Struct("!BBH")  # struct nfgenmsg; of a dump its last part is the generation

Seen = tuple[bytes, ...]


class GuardRules:
    """The tables of one network namespace. Not for concurrent use."""

    def __init__(self) -> None:
        self._text = ""
        self._seen: Seen = ()

    def put(self, text: str) -> bool:
        """Bring the kernel to guard.rules(); nothing to do where it stands unchanged. True: it was written.

        Raises OSError where nft is not there, does not end, or refuses.
        """
        if text == self._text and _seen() == self._seen:
            return False
        self._text = ""
        _run(text)
        self._text, self._seen = text, _seen()
        return True

    def remove(self) -> None:
        """Take both tables away. Raises OSError."""
        self._text, self._seen = "", ()
        if _seen():
            _run(guard.removal())


def _seen() -> Seen:
    """Our rules as the kernel spells them. Their sets are constant: who changes one changes a rule."""
    with netlink.Socket(_NETLINK_NETFILTER) as connection:
        found: list[bytes] = []
        for family in guard.FAMILIES:
            body = _HEADER.pack(_FAMILY[family], 0, 0) + netlink.attribute(_RULE_TABLE, guard.TABLE.encode() + b"\0")
            try:
                dumped = connection.dump(
                    netlink.Request(_GET_RULE, 0, body, f"list the rules of {family} {guard.TABLE}")
                )
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
                    raise
                continue
            found += [item[_HEADER.size :] for item in dumped]
        return tuple(found)


def _run(text: str) -> None:
    try:
        done = subprocess.run(["nft", "-f", "-"], input=text, capture_output=True, text=True, timeout=_DEADLINE)
    except FileNotFoundError:
        raise OSError(errno.ENOENT, "the program nft is not installed (Debian's package is nftables)") from None
    except subprocess.TimeoutExpired:
        raise OSError(errno.ETIMEDOUT, f"nft did not end within {_DEADLINE:g} s") from None
    if done.returncode != 0:
        words = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise OSError(errno.EIO, f"nft refused the rules of the pod network: {words[0]}")
