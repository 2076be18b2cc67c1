"""Text to trees: plain dicts, lists and scalars that remember their lines. Knows YAML and JSON, no descriptors.

Pure. Stricter than a YAML parser: duplicate keys, deep nesting and aliases that expand beyond a bound are refused.
Fails with `Malformed`, which names the line. YAML is imported when it is first needed: JSON costs nothing of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from podplane.manifest.scalars import resolve

MAX_DEPTH = 100
MAX_ALIASED = 10_000
"""How many nodes the aliases of one document may repeat in total."""
_LIBYAML_DEPTH = "maximum nesting depth"
"""How newer builds of libyaml refuse, before any event, a text far deeper than MAX_DEPTH."""

_TAG = "tag:yaml.org,2002:"


class Malformed(Exception):
    """The text is not one tree a document. `line` counts from 1; 0 where it is unknown."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


class Mark(NamedTuple):
    """Where a value stands (line, from 1) and how it is spelled (a scalar's own text)."""

    line: int
    text: str = ""


class MarkedMap(dict[str, Any]):
    """A mapping, the marks of its values by key, and how many nodes it spans."""

    __slots__ = ("line", "marks", "size")

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line, self.size = line, 1
        self.marks: dict[str, Mark] = {}


class MarkedList(list[Any]):
    """A sequence, the marks of its items, and how many nodes it spans."""

    __slots__ = ("line", "marks", "size")

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line, self.size = line, 1
        self.marks: list[Mark] = []


def from_json(text: str | bytes) -> Any:
    """The tree of one JSON text, without marks. Malformed names the line of a syntax error or a duplicate key."""
    try:
        return json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise Malformed(f"not JSON: {error.msg}", error.lineno) from None
    except RecursionError:
        raise Malformed(f"nested deeper than {MAX_DEPTH}") from None
    except (UnicodeDecodeError, ValueError) as error:
        raise Malformed(f"not JSON: {error}") from None


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise Malformed(f'duplicate key "{next(key for key in keys if keys.count(key) > 1)}"')
    return found


def _no_constant(name: str) -> Any:
    raise Malformed(f"{name} is not JSON")


def from_yaml(text: str) -> Iterator[tuple[int, Any]]:
    """Each document's first line and tree, in order; empty documents are None. Malformed at the first bad line."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        events = yaml.parse(text, Loader=loader)
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                builder = _Builder(yaml, events)
                root: Any = next(events)
                yield root.start_mark.line + 1, builder.build(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 0
        if _LIBYAML_DEPTH in (error.problem or ""):
            raise Malformed(f"nested deeper than {MAX_DEPTH}", line) from None
        problem = ", ".join(filter(None, (error.context, error.problem)))
        raise Malformed(f"not YAML: {problem}", line) from None
    except yaml.YAMLError as error:
        raise Malformed(f"not YAML: {str(error).splitlines()[0]}") from None


class _Builder:
    """Builds one document's tree from parser events; never recurses deeper than MAX_DEPTH.

    libyaml's own composer recurses in C without a bound and takes the process down: hence events.
    """

    def __init__(self, yaml: Any, events: Iterator[Any]) -> None:
        self._yaml, self._events = yaml, events
        self._anchors: dict[str, tuple[Any, str]] = {}
        self._aliased = 0
        self._path: list[str] = []

    def build(self, event: Any) -> Any:
        """The tree that starts with `event`."""
        return self._node(event, 0)[0]

    def _node(self, event: Any, depth: int) -> tuple[Any, str]:
        yaml, line = self._yaml, event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, line)
        if depth > MAX_DEPTH:
            raise Malformed(f"nested deeper than {MAX_DEPTH}", line)
        if isinstance(event, yaml.ScalarEvent):
            built, text = _scalar(event, line), event.value
        elif isinstance(event, yaml.SequenceStartEvent):
            built, text = self._sequence(line, depth), ""
        else:
            built, text = self._mapping(line, depth), ""
        # Only a finished node can be referred to, so no alias can contain itself.
        if event.anchor:
            self._anchors[event.anchor] = (built, text)
        return built, text

    def _alias(self, event: Any, line: int) -> tuple[Any, str]:
        if event.anchor not in self._anchors:
            raise Malformed(f'the alias "{event.anchor}" refers to nothing before it', line)
        built, text = self._anchors[event.anchor]
        self._aliased += _size(built)
        if self._aliased > MAX_ALIASED:
            raise Malformed(f"aliases repeat more than {MAX_ALIASED} nodes", line)
        return built, text

    def _sequence(self, line: int, depth: int) -> MarkedList:
        items = MarkedList(line)
        for event in self._events:
            if isinstance(event, self._yaml.SequenceEndEvent):
                break
            self._path.append(f"[{len(items)}]")
            value, text = self._node(event, depth + 1)
            self._path.pop()
            items.append(value)
            items.marks.append(Mark(event.start_mark.line + 1, text))
            items.size += _size(value)
        return items

    def _mapping(self, line: int, depth: int) -> MarkedMap:
        found = MarkedMap(line)
        merged: list[MarkedMap] = []
        for event in self._events:
            if isinstance(event, self._yaml.MappingEndEvent):
                break
            key_line = event.start_mark.line + 1
            is_merge = getattr(event, "value", None) == "<<" and event.implicit[0]
            key = _key(self._node(event, depth + 1), key_line)
            self._path.append(f".{key}")
            value, text = self._node(next(self._events), depth + 1)
            if is_merge:
                merged.extend(_merged(value, key_line))
            elif key in found:
                where, first = "".join(self._path).lstrip("."), found.marks[key].line
                raise Malformed(f'{where}: duplicate key "{key}" (first at line {first})', key_line)
            else:
                found[key], found.marks[key] = value, Mark(key_line, text)
            self._path.pop()
            found.size += _size(value)
        _fill(found, merged)
        return found


def _size(tree: Any) -> int:
    return tree.size if isinstance(tree, MarkedMap | MarkedList) else 1


def _key(node: tuple[Any, str], line: int) -> str:
    value, text = node
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and str(value) == text:
        return text
    if isinstance(value, MarkedMap | MarkedList):
        raise Malformed("a key must be a string", line)
    raise Malformed(f'the key {text or "null"} is not a string in YAML; quote it: "{text}"', line)


def _merged(value: Any, line: int) -> Iterable[MarkedMap]:
    found = value if isinstance(value, MarkedList) else [value]
    if not all(isinstance(one, MarkedMap) for one in found):
        raise Malformed("<< takes a mapping or a list of mappings", line)
    return found


def _fill(found: MarkedMap, merged: Iterable[MarkedMap]) -> None:
    """`<<` gives what the mapping itself does not say; of several, the first wins."""
    for one in merged:
        for key, value in one.items():
            if key not in found:
                found[key], found.marks[key] = value, one.marks[key]


def _scalar(event: Any, line: int) -> Any:
    tag = event.tag
    if tag is None or tag == "!":
        return resolve(event.value) if event.implicit[0] and tag is None else event.value
    if tag == f"{_TAG}str":
        return event.value
    if tag in (f"{_TAG}int", f"{_TAG}float", f"{_TAG}bool", f"{_TAG}null"):
        return resolve(event.value)
    raise Malformed(f"the tag {tag} is not supported", line)
