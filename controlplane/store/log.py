"""The contract of the log: what every driver does, and what tests/controlplane/store checks of each.

One counter, the revision, rises by one with every committed write. A transaction is one or more writes that
commit together or not at all; its writes take consecutive revisions. Keys are `<plural>/<namespace>/<name>`
(`nodes//node-1` without a namespace), values the protobuf bytes of the object without its resourceVersion.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Write:
    """Set `key` to `value`, or delete it where value is None.

    `expected` is the revision that the key must have: 0 it must not exist, None no precondition. Deleting a key
    that does not exist is a Conflict.
    """

    key: str
    value: bytes | None
    expected: int | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A key's newest value and the revisions of its last write and of its creation."""

    key: str
    value: bytes
    revision: int
    created: int


@dataclass(frozen=True, slots=True)
class Change:
    """One committed write. A deletion has value None; `previous` is the value that it replaced or removed."""

    key: str
    revision: int
    created: int
    value: bytes | None
    previous: bytes | None


class Log(Protocol):
    """A driver. Every method may raise Unavailable; a failed fsync is fatal: `failed` fires and no write succeeds."""

    failed: asyncio.Future[str]
    """Done, with the reason, once no write can succeed any more: the daemon waits for it and exits."""

    @property
    def cluster_id(self) -> str:
        """Made once, when the store was made."""

    @property
    def epoch(self) -> str:
        """Made anew whenever the store's history may not continue the one before (init, restore)."""

    @property
    def revision(self) -> int:
        """The newest committed revision."""

    @property
    def compacted(self) -> int:
        """Changes up to this revision are no longer to be had."""

    async def commit(self, transaction: Sequence[Write]) -> Sequence[Change]:
        """Commit durably, all or nothing; Conflict names the key whose precondition failed.

        When this returns, every subscriber has been handed the changes.
        """

    async def load(self, prefix: str = "") -> tuple[Sequence[Record], int]:
        """Every live record below `prefix` in key order, and the revision at which that was so."""

    async def changes(self, after: int, limit: int = 1000) -> Sequence[Change]:
        """Committed changes with a revision above `after`, in order; Expired where they are compacted."""

    def subscribe(self, deliver: Callable[[Sequence[Change]], None]) -> Callable[[], None]:
        """Call `deliver` on the event loop with each group of changes, in order, before its commit returns.

        Returns the function that ends the subscription.
        """

    async def compact(self, revision: int) -> None:
        """Forget changes up to `revision`; the newest value of every live key stays."""

    async def close(self) -> None:
        """Finish what is queued and close."""
