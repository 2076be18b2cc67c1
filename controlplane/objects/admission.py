"""What the facade asks of admission: to complete an object, then to judge it."""

from __future__ import annotations

from typing import Any, Protocol

from controlplane.api.admission_context import AdmissionContext
from podplane.errors import FieldError


class Admission(Protocol):
    """Neither part awaits: between a look-up and the hand-over to the log nothing else runs."""

    def mutate(self, obj: Any, old: Any, context: AdmissionContext) -> None:
        """Default and allocate, in place. `old` is None on create and shared on update: read it only."""

    def validate(self, obj: Any, old: Any, context: AdmissionContext) -> list[FieldError]:
        """Everything that is wrong with the object; it is not changed."""

    def validate_status(self, obj: Any, old: Any) -> list[FieldError]:
        """Everything that is wrong with the status that is written; neither is changed."""

    def forbids(self, obj: Any, old: Any, context: AdmissionContext) -> str:
        """Why the policy of its namespace forbids a valid object; empty where it does not."""
