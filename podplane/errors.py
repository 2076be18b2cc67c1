"""The errors that a caller decides by: one class per decision, and the one table that maps them to gRPC.

A message reads "cannot X: reason" or names what is wrong and what to do. No gRPC import: the table holds the
codes by name, so that pure modules may raise these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class PodplaneError(Exception):
    """Any error that a caller is told about in its own words."""


class Unauthenticated(PodplaneError):
    """No credentials, or credentials that are not known."""


class Forbidden(PodplaneError):
    """The subject may not use this verb on this resource; also where the object does not exist for it."""


class NotFound(PodplaneError):
    """No such object."""


class AlreadyExists(PodplaneError):
    """An object of this kind and name is there."""


class Conflict(PodplaneError):
    """A precondition (resourceVersion, uid) does not hold any more: read again and retry."""


class Expired(PodplaneError):
    """The revision asked for is compacted: list again. `oldest` is the first revision that can still be had."""

    def __init__(self, message: str, oldest: int = 0) -> None:
        super().__init__(message)
        self.oldest = oldest


class Unavailable(PodplaneError):
    """Not now: the other side is gone, starting or overloaded. Retry."""


class NotSupported(PodplaneError):
    """A valid wish that this version does not fulfil."""


class TooLarge(PodplaneError):
    """An object or a page over its bound."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong with a manifest: where (`spec.containers[0].image`) and what."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class Invalid(PodplaneError):
    """Bad input. Carries every field that is wrong, not only the first."""

    def __init__(self, message: str, fields: Sequence[FieldError] = ()) -> None:
        super().__init__(message if not fields else f"{message}: " + "; ".join(map(str, fields)))
        self.fields = tuple(fields)


GRPC_CODES: dict[type[PodplaneError], str] = {
    Unauthenticated: "UNAUTHENTICATED",
    Forbidden: "PERMISSION_DENIED",
    NotFound: "NOT_FOUND",
    AlreadyExists: "ALREADY_EXISTS",
    Conflict: "ABORTED",
    Expired: "OUT_OF_RANGE",
    Unavailable: "UNAVAILABLE",
    NotSupported: "UNIMPLEMENTED",
    TooLarge: "RESOURCE_EXHAUSTED",
    Invalid: "INVALID_ARGUMENT",
}
