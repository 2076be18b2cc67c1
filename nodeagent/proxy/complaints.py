"""What is wrong with single services, and when somebody has to be told of it. Pure: time arrives with the question.

A service that cannot be programmed is tried again every few seconds: it is told of at once, when the words change, and
every few minutes while it lasts. Owns the reasons of the events. Cannot fail.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

AGAIN = 300.0
"""Seconds until the same is told once more: events do not last for ever."""
UNPROGRAMMED = "FailedToProgramService"
NO_HEALTH_CHECK = "FailedToStartServiceHealthcheck"
"""kube-proxy's."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """reason: of the event."""

    reason: str
    message: str


class Complaints:
    """Of the services of one node, by namespace/name."""

    def __init__(self) -> None:
        self._standing: Mapping[str, Complaint] = {}
        self._told: dict[str, tuple[Complaint, float]] = {}

    def of(self, service: str) -> str:
        """What is wrong with it at present; "" where nothing is."""
        found = self._standing.get(service)
        return found.message if found else ""

    def due(self, standing: Mapping[str, Complaint], now: float) -> Iterator[tuple[str, Complaint]]:
        """These and no others stand from now on; yields those that are to be told."""
        self._standing = standing
        self._told = {key: told for key, told in self._told.items() if key in standing}
        for key, complaint in standing.items():
            before, at = self._told.get(key, (None, 0.0))
            if before != complaint or now - at >= AGAIN:
                self._told[key] = (complaint, now)
                yield key, complaint
