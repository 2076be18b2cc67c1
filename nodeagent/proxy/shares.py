"""What several services must not have both: a place where one is asked for, a virtual server, an entry of a set. Pure.

Guards what the kernel still holds. Of several that wish for one place claims.py has chosen already; but a service that
is refused, or of which nothing can be made now, keeps what it had, and no other may write that before it is free: who
asks for it is refused by name, whole. The same for what no claim is about, as ipvs' marks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

P = TypeVar("P")
"""What a mode makes of a service."""
S = TypeVar("S", bound=Hashable)
"""What is one service's alone."""


class Shares(Generic[P, S]):
    """Who has what; services by namespace/name."""

    def __init__(self, of: Callable[[P], Iterable[S]], spelled: Callable[[S], str]) -> None:
        """of: what of a part is its service's alone. spelled: as messages have it."""
        self._of = of
        self._spelled = spelled
        self._owners: dict[S, str] = {}

    def anew(self, parts: Mapping[str, P]) -> None:
        """Services have these, and nothing else."""
        self._owners = {share: service for service, part in parts.items() for share in self._of(part)}

    def exchange(self, asked: Mapping[str, tuple[P, P]], stuck: Mapping[str, str]) -> dict[str, str]:
        """Let services have a part in place of the one that they had; returns who keeps what he had, and why.

        What one gives up another one may take at once; what two want, the first of them. asked: (had, wants). stuck:
        who is refused already, and why.
        """
        shares = {service: (tuple(self._of(had)), tuple(self._of(wants))) for service, (had, wants) in asked.items()}
        refused = dict(stuck)
        while conflicts := self._exchanged(shares, refused):
            # They keep what they had, which somebody may have taken meanwhile: all over again without them.
            refused |= conflicts
        return refused

    def _exchanged(
        self, asked: Mapping[str, tuple[Sequence[S], Sequence[S]]], refused: Collection[str]
    ) -> dict[str, str]:
        """Who more cannot have what he wants."""
        owners, conflicts = self._owners, dict[str, str]()
        for service, (had, wants) in asked.items():
            for share in (*had, *wants):
                if owners.get(share) == service:
                    del owners[share]
        order = sorted(asked, key=lambda service: service not in refused) if refused else asked
        for service in order:
            shares = asked[service][0 if service in refused else 1]
            if service in refused or owners.keys().isdisjoint(shares):
                owners.update(dict.fromkeys(shares, service))
            else:
                taken = next(share for share in shares if share in owners)
                conflicts[service] = f"{self._spelled(taken)} is already that of {owners[taken]}"
        return conflicts
