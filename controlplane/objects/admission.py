"""What the facade asks of admission: to complete an object, then to judge it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from controlplane.store.cache import WatchCache
from podplane.errors import FieldError


@dataclass(frozen=True, slots=True)
class AdmissionContext:
    """The write that is admitted. `cache` is for look-ups: taken addresses, other objects."""

    verb: str
    """create or update; apply and mutate are one of these by then."""
    user: str
    cache: WatchCache


class Admission(Protocol):
    """Neither part awaits: between a look-up and the hand-over to the log nothing else runs."""

    def mutate(self, obj: Any, old: Any, context: AdmissionContext) -> None:
        """Default and allocate, in place. `old` is None on create and shared on update: read it only."""

    def validate(self, obj: Any, old: Any, context: AdmissionContext) -> list[FieldError]:
        """Everything that is wrong with the object; it is not changed."""
