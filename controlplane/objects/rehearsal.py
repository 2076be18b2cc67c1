"""A log that commits nothing: what a dry run writes to. Never fails, and nobody is told of its writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from controlplane.store.log import Change, Write


class Committing(Protocol):
    """What Objects needs of a log."""

    async def commit(self, transaction: Sequence[Write]) -> Sequence[Change]:
        """As Log.commit."""


class Rehearsal:
    """Answers each write as if nothing had come between: at the revision that it expects."""

    async def commit(self, transaction: Sequence[Write]) -> Sequence[Change]:
        return [Change(one.key, one.expected or 0, one.expected or 0, one.value, None) for one in transaction]
