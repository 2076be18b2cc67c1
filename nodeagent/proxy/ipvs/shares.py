"""What several services must not have both: a virtual server, an entry of a set. Pure.

Guards what the kernel still holds. Of several that wish for one place claims.py has chosen already; but a service that
is refused, or of which nothing can be made now, keeps what it had, and no other may write that before it is free: who
asks for it is refused by name, whole. The same for marks, which no claim is about.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from nodeagent.proxy.ipvs.plan import Front, Part

Share = Front | tuple[str, str]


class Shares:
    """Who has which virtual server and which entry."""

    def __init__(self) -> None:
        self._owners: dict[Share, str] = {}

    def owner(self, share: Share) -> str:
        """The service that has it; "" for none."""
        return self._owners.get(share, "")

    def conflict(self, service: str, part: Part) -> str:
        """Why the service cannot have this part; "" where it can."""
        for share in _of(part):
            if (owner := self._owners.get(share, service)) != service:
                what = share if isinstance(share, Front) else f"{share[0]} {share[1]}"
                return f"{what} is taken by {owner}"
        return ""

    def move(self, service: str, old: Part, new: Part) -> None:
        """Give back what it had and take what it gets."""
        self._let_go(service, old)
        self._owners |= dict.fromkeys(_of(new), service)

    def exchange(self, asked: Mapping[str, tuple[Part, Part]], stuck: Mapping[str, str]) -> dict[str, str]:
        """Let services have a part in place of the one that they had; returns who keeps what he had, and why.

        What one gives up another one may take at once. asked: (had, wants). stuck: who is refused already, and why.
        """
        refused = dict(stuck)
        while conflicts := self._exchanged(asked, refused):
            # They keep what they had, which somebody may have taken meanwhile: all over again without them.
            refused |= conflicts
        return refused

    def _exchanged(self, asked: Mapping[str, tuple[Part, Part]], refused: Container[str]) -> dict[str, str]:
        """Who more cannot have what he wants."""
        for service, (had, wants) in asked.items():
            self._let_go(service, had)
            self._let_go(service, wants)
        conflicts: dict[str, str] = {}
        for service in sorted(asked, key=lambda service: service not in refused):
            part = asked[service][0 if service in refused else 1]
            if service not in refused and (words := self.conflict(service, part)):
                conflicts[service] = words
            else:
                self._owners |= dict.fromkeys(_of(part), service)
        return conflicts

    def _let_go(self, service: str, part: Part) -> None:
        for share in _of(part):
            if self._owners.get(share) == service:
                del self._owners[share]


def _of(part: Part) -> Iterator[Share]:
    yield from part.servers
    yield from part.elements
