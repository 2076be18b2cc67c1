"""Label and field selectors of list and watch, as one predicate over objects. Pure; fails with Invalid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from podplane import selectors
from podplane.kinds import Kind

Predicate = Callable[[Any], bool]
"""Takes an object (a kind's message), which it does not change."""


def predicate(kind: Kind, labels: str, fields: str) -> Predicate | None:
    """What both selectors ask of an object; None where both are empty and everything matches."""
    by_label, by_field = selectors.parse(labels), selectors.parse_fields(fields.strip(), kind.message)
    if not by_field.terms:
        return (lambda obj: by_label.matches(obj.metadata.labels)) if by_label.requirements else None
    if not by_label.requirements:
        return by_field.matches
    return lambda obj: by_field.matches(obj) and by_label.matches(obj.metadata.labels)
