"""Answers of other servers, kept for as long as they allow. Pure: time is given.

Answers are kept as they came: 100-500 bytes, where a parsed message takes many thousands.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K")

SIZE = 2048
LONGEST, LONGEST_NEGATIVE = 3600, 60
"""Seconds that an answer is kept at most, whatever it allows; one that there is none for less."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer and when it came and ends; seconds of a clock that only goes on."""

    wire: bytes
    since: float
    until: float


class Cache(Generic[K]):
    """The most recently used answers."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._kept: OrderedDict[K, Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K, now: float) -> Kept | None:
        """What is kept and still holds."""
        found = self._kept.get(key)
        if found is None:
            return None
        if now >= found.until:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return found

    def put(self, key: K, wire: bytes, now: float, ttl: float) -> None:
        """Keep an answer for so many seconds; not at all for none."""
        if ttl > 0:
            self._kept[key] = Kept(wire, now, now + ttl)
            self._kept.move_to_end(key)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
