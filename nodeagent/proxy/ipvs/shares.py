"""What several services must not have both: a virtual server, an entry of a set. Pure.

Owns who has what. The first service that asks keeps it; another one that asks for the same is refused by name, whole,
and may have it once it is free. (The control plane gives no address or port twice; an agent does not rely on it.)
"""

from __future__ import annotations

from collections.abc import Iterator

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
        for share in _of(old):
            if self._owners.get(share) == service:
                del self._owners[share]
        self._owners |= dict.fromkeys(_of(new), service)


def _of(part: Part) -> Iterator[Share]:
    yield from part.servers
    yield from part.elements
