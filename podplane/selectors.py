"""Label and field selectors: from kubectl's strings and from messages, and what they match.

Pure. Fails with `Invalid`, which quotes the part that cannot be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from podplane import names
from podplane.errors import Invalid
from podplane.manifest.schema import Shape, fields
from podplane.v1 import meta_pb2

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label. Operators: In, NotIn, Exists, DoesNotExist, Gt, Lt (the last two on integers)."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Labels) -> bool:
        """As Kubernetes: NotIn and DoesNotExist hold where the label is absent."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value is None or value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
            case _:
                return self._compares(value)

    def _compares(self, value: str | None) -> bool:
        (bound,) = self.values
        if value is None or not _INTEGER.fullmatch(value):
            return False
        return int(value) > int(bound) if self.operator == "Gt" else int(value) < int(bound)

    def __str__(self) -> str:
        listed = ",".join(sorted(self.values))
        match self.operator:
            case "In":
                return f"{self.key}={listed}" if len(self.values) == 1 else f"{self.key} in ({listed})"
            case "NotIn":
                return f"{self.key}!={listed}" if len(self.values) == 1 else f"{self.key} notin ({listed})"
            case "Exists":
                return self.key
            case "DoesNotExist":
                return f"!{self.key}"
            case _:
                return f"{self.key}{'>' if self.operator == 'Gt' else '<'}{listed}"


@dataclass(frozen=True, slots=True)
class Selector:
    """Requirements that must all hold; without any it matches everything, unless it is NOTHING."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    def matches(self, labels: Labels) -> bool:
        """True where every requirement holds for these labels."""
        return not self.nothing and all(requirement.matches(labels) for requirement in self.requirements)

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))


EVERYTHING = Selector()
NOTHING = Selector(nothing=True)

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_PART = re.compile(
    r"\s*(?:"
    r"!\s*(?P<absent>[^\s,!=<>()]+)"
    r"|(?P<key>[^\s,!=<>()]+)\s*(?:"
    r"(?P<equality>==|=|!=)\s*(?P<value>[^\s,!=<>()]*)"
    r"|(?P<order>[<>])\s*(?P<bound>[^\s,!=<>()]+)"
    r"|(?P<set>in|notin)\s*\((?P<values>[^()]*)\)"
    r")?)\s*(?:,|$)"
)


def parse(text: str) -> Selector:
    """kubectl's -l: `app=web,tier in (a,b),!canary`. Empty text matches everything."""
    requirements: list[Requirement] = []
    at = 0
    while at < len(text.rstrip()):
        found = _PART.match(text, at)
        if found is None:
            raise Invalid(f'unable to parse the label selector "{text}" at "{text[at:]}"')
        requirements.append(_checked(_requirement(found), text))
        at = found.end()
    if text.rstrip().endswith(","):
        raise Invalid(f'unable to parse the label selector "{text}": nothing follows the last comma')
    return Selector(tuple(requirements))


def from_map(labels: Labels) -> Selector:
    """Every label must have its value: a service's selector, a pod's nodeSelector. An empty map gives EVERYTHING."""
    return Selector(tuple(Requirement(key, "In", frozenset((value,))) for key, value in sorted(labels.items())))


def from_message(selector: meta_pb2.LabelSelector | None) -> Selector:
    """A LabelSelector; None matches nothing, an empty one everything."""
    if selector is None:
        return NOTHING
    expressions = tuple(
        _checked(Requirement(one.key, one.operator, frozenset(one.values)), one.key)
        for one in selector.matchExpressions
    )
    return Selector((*from_map(selector.matchLabels).requirements, *expressions))


def _requirement(found: re.Match[str]) -> Requirement:
    if (absent := found["absent"]) is not None:
        return Requirement(absent, "DoesNotExist")
    key = found["key"]
    if found["equality"]:
        return Requirement(key, "NotIn" if found["equality"] == "!=" else "In", frozenset((found["value"],)))
    if found["order"]:
        return Requirement(key, "Gt" if found["order"] == ">" else "Lt", frozenset((found["bound"],)))
    if found["set"]:
        values = frozenset(value.strip() for value in found["values"].split(","))
        return Requirement(key, "In" if found["set"] == "in" else "NotIn", values)
    return Requirement(key, "Exists")


def _checked(requirement: Requirement, text: str) -> Requirement:
    wrong = [f'key "{requirement.key}": {problem}' for problem in names.qualified_name(requirement.key)]
    if requirement.operator in ("Gt", "Lt"):
        if any(not _INTEGER.fullmatch(value) for value in requirement.values):
            wrong.append("> and < take an integer")
    elif requirement.operator in ("In", "NotIn"):
        wrong += [f'value "{v}": {problem}' for v in sorted(requirement.values) for problem in names.label_value(v)]
        if not requirement.values:
            wrong.append(f"{requirement.operator} needs values")
    elif requirement.operator not in ("Exists", "DoesNotExist"):
        wrong.append(f'"{requirement.operator}" is not an operator')
    elif requirement.values:
        wrong.append(f"{requirement.operator} takes no values")
    if wrong:
        raise Invalid(f'unable to parse the label selector "{text}": {"; ".join(wrong)}')
    return requirement


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """Comparisons (path, wanted value, equal or not) of an object's scalar fields; unset fields are ""."""

    terms: tuple[tuple[tuple[str, ...], str, bool], ...] = ()

    def matches(self, obj: Message) -> bool:
        """True where every comparison holds."""
        return all((_at(obj, path) == wanted) is equal for path, wanted, equal in self.terms)


_TERM = re.compile(r"\s*([^=!,\\]+?)\s*(==|=|!=)((?:\\.|[^\\,=])*)(?:,|$)")


def parse_fields(text: str, message: type[Message]) -> FieldSelector:
    """kubectl's --field-selector over `message`: `status.phase!=Running,spec.nodeName=node-1`; `\\` escapes `,=\\`."""
    terms = []
    at = 0
    while at < len(text):
        found = _TERM.match(text, at)
        if found is None:
            raise Invalid(f'unable to parse the field selector "{text}" at "{text[at:]}"')
        path = tuple(found[1].split("."))
        if not _is_scalar(message.DESCRIPTOR, path):
            raise Invalid(f"field label not supported: {found[1]}")
        terms.append((path, re.sub(r"\\(.)", r"\1", found[3]).strip(), found[2] != "!="))
        at = found.end()
    return FieldSelector(tuple(terms))


def _is_scalar(descriptor: Any, path: Iterable[str]) -> bool:
    *parents, last = path
    for name in parents:
        field = fields(descriptor).get(name)
        if field is None or field.shape is not Shape.MESSAGE or field.is_list or field.is_map:
            return False
        descriptor = field.message
    field = fields(descriptor).get(last)
    return field is not None and field.shape in _COMPARABLE and not field.is_list and not field.is_map


_COMPARABLE: dict[Shape, Callable[[Any], str]] = {
    Shape.STRING: str,
    Shape.QUANTITY: str,
    Shape.INTEGER: str,
    Shape.BOOL: lambda value: "true" if value else "false",
}


def _at(obj: Message, path: tuple[str, ...]) -> str:
    found: Any = obj
    for name in path[:-1]:
        found = getattr(found, name)
    return _COMPARABLE[fields(found.DESCRIPTOR)[path[-1]].shape](getattr(found, path[-1]))
