"""When images are removed, and which: the kubelet's rules. Pure.

Beyond the high threshold of the disk's use, unused images go, those not used for longest first, until the low one is
reached. Never one in use, and never one that has been unused for less than the minimum age.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from nodeagent.runtime.image import Held


@dataclass(frozen=True, slots=True)
class Policy:
    """Percentages of the disk in use (high 100: never), seconds."""

    high: int = 85
    low: int = 80
    minimum_age: float = 120.0


def wanted(policy: Policy, size: int, free: int) -> int:
    """How many bytes are to be freed of a disk of `size` bytes with `free` left."""
    used = 100 - free * 100 // size if size else 0
    if policy.high >= 100 or used < policy.high:
        return 0
    return max(0, size * (100 - policy.low) // 100 - free)


def removable(held: Iterable[Held], in_use: Collection[str], policy: Policy, now: float) -> list[Held]:
    """Images that may go, in the order in which they go."""
    unused = [one for one in held if one.image.id not in in_use and now - one.used >= policy.minimum_age]
    return sorted(unused, key=lambda one: (one.used, one.image.id))
