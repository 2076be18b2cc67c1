"""Node selector terms and taints against a node. Pure (core/v1 NodeSelectorTerm, Taint, Toleration)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from podplane.v1 import scheduling_pb2

Requirements = tuple[tuple[str, str, tuple[str, ...]], ...]
"""key, operator, values."""


class Term(NamedTuple):
    """A NodeSelectorTerm: every requirement must hold; one without any matches no node."""

    labels: Requirements
    fields: Requirements


class Taint(NamedTuple):
    """A node's taint, without the time when it was added."""

    key: str
    value: str
    effect: str


class Toleration(NamedTuple):
    """A pod's toleration; an empty effect or key (with Exists) stands for all of them."""

    key: str
    operator: str
    value: str
    effect: str


def read_term(term: scheduling_pb2.NodeSelectorTerm) -> Term:
    """The term in hashable form."""
    return Term(_read(term.matchExpressions), _read(term.matchFields))


def _read(requirements: Iterable[scheduling_pb2.NodeSelectorRequirement]) -> Requirements:
    return tuple((each.key, each.operator, tuple(each.values)) for each in requirements)


def term_matches(term: Term, labels: Mapping[str, str], node: str) -> bool:
    """Whether a node with these labels and this name satisfies the term. The only field is metadata.name."""
    if not term.labels and not term.fields:
        return False
    return all(_holds(labels.get(key), operator, values) for key, operator, values in term.labels) and all(
        _holds(node if key == "metadata.name" else None, operator, values) for key, operator, values in term.fields
    )


def _holds(actual: str | None, operator: str, values: Sequence[str]) -> bool:
    match operator:
        case "In":
            return actual is not None and actual in values
        case "NotIn":
            return actual is None or actual not in values
        case "Exists":
            return actual is not None
        case "DoesNotExist":
            return actual is None
        case "Gt" | "Lt":
            return _compares(actual, operator, values)
    return False


def _compares(actual: str | None, operator: str, values: Sequence[str]) -> bool:
    try:
        left, right = int(actual or ""), int(values[0])
    except (ValueError, IndexError):
        return False
    return left > right if operator == "Gt" else left < right


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Whether one toleration covers one taint."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    return bool(toleration.key) and toleration.value == taint.value


def read_tolerations(tolerations: Iterable[scheduling_pb2.Toleration]) -> tuple[Toleration, ...]:
    """The tolerations in hashable form."""
    return tuple(Toleration(each.key, each.operator or "Equal", each.value, each.effect) for each in tolerations)


def untolerated(taints: Iterable[Taint], tolerations: Sequence[Toleration], effects: Sequence[str]) -> Taint | None:
    """The first taint with one of these effects that no toleration covers."""
    for taint in taints:
        if taint.effect in effects and not any(tolerates(each, taint) for each in tolerations):
            return taint
    return None
