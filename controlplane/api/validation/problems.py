"""What is wrong with an object, collected in Kubernetes' words (apimachinery's field.Error). Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from functools import lru_cache

from google.protobuf.message import Message

from podplane.errors import FieldError
from podplane.manifest.printing import to_dict
from podplane.names import Check


class Problems(list[FieldError]):
    """Field errors, in the order in which they were found."""

    def add(self, path: str, message: str) -> None:
        self.append(FieldError(path, message))

    def required(self, path: str, detail: str = "") -> None:
        self.add(path, f"Required value: {detail}" if detail else "Required value")

    def invalid(self, path: str, value: object, detail: str) -> None:
        self.add(path, f"Invalid value: {shown(value)}: {detail}")

    def duplicate(self, path: str, value: object) -> None:
        self.add(path, f"Duplicate value: {shown(value)}")

    def unsupported(self, path: str, value: object, supported: Iterable[str]) -> None:
        listed = ", ".join(json.dumps(one) for one in supported)
        self.add(path, f"Unsupported value: {shown(value)}: supported values: {listed}")

    def forbidden(self, path: str, detail: str) -> None:
        self.add(path, f"Forbidden: {detail}")

    def not_found(self, path: str, value: object) -> None:
        self.add(path, f"Not found: {shown(value)}")

    def too_long(self, path: str, longest: int) -> None:
        self.add(path, f"Too long: may not be more than {longest} bytes")

    def syntax(self, path: str, value: str, check: Check, *, required: bool = True) -> None:
        """`value` must be there (unless not required) and pass `check`."""
        if not value:
            if required:
                self.required(path)
            return
        for detail in _details(check, value) if len(value) <= _REMEMBERED else check(value):
            self.invalid(path, value, detail)

    def one_of(self, path: str, value: str, supported: Collection[str], *, required: bool = True) -> None:
        if not value and required:
            self.required(path)
        elif value and value not in supported:
            self.unsupported(path, value, supported)

    def at_least(self, path: str, value: int, least: int = 0) -> None:
        if value < least:
            self.invalid(path, value, f"must be greater than or equal to {least}" if least else NOT_NEGATIVE)

    def port(self, path: str, value: int) -> None:
        if not 1 <= value <= 65535:
            self.invalid(path, value, "must be between 1 and 65535, inclusive")

    def unique(self, path: str, value: str, seen: set[str]) -> None:
        if value and value in seen:
            self.duplicate(path, value)
        seen.add(value)

    def immutable(self, path: str, value: object, old: object) -> None:
        if value != old:
            self.invalid(path, value, IMMUTABLE)


_REMEMBERED = 63  # characters: most names are met again and again, and longer ones would fill the memory


@lru_cache(maxsize=4096)
def _details(check: Check, value: str) -> tuple[str, ...]:
    return tuple(check(value))


NOT_NEGATIVE = "must be greater than or equal to 0"
IMMUTABLE = "field is immutable"


def shown(value: object) -> str:
    """A value as messages quote it."""
    if isinstance(value, Message):
        value = to_dict(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
