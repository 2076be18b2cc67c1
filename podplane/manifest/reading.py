"""The one strict walk from manifests to messages: names and types are checked by protobuf descriptor.

Owns which spelling a field takes. It never applies defaults and never judges values (admission does). It fails with
`Invalid` that carries everything that is wrong in the text, each with document, line and field path.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

from google.protobuf.message import Message

from podplane.errors import FieldError, Invalid
from podplane.kinds import KINDS, Kind
from podplane.manifest import trees
from podplane.manifest.fields import Reader
from podplane.manifest.trees import Malformed, MarkedMap

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Document:
    """One object of a manifest. `index` counts the documents and `line` the lines of the text, both from 1."""

    index: int
    line: int
    obj: Message
    kind: Kind


@dataclass(frozen=True, slots=True)
class Problem(FieldError):
    """A FieldError that knows its place: `web.yaml: document 2, line 14: spec.replicas: expected ...`."""

    source: str = ""
    document: int = 0
    line: int = 0

    def __str__(self) -> str:
        place = ", ".join(
            f"{word} {number}" for word, number in (("document", self.document), ("line", self.line)) if number
        )
        return ": ".join(part for part in (self.source, place, self.path, self.message) if part)


def read_documents(text: str | bytes, source: str) -> list[Document]:
    """The objects of a YAML or JSON text, in order; `kind: List` gives its items. Invalid carries every Problem."""
    found: list[Document] = []
    problems: list[Problem] = []
    try:
        for index, (line, tree) in enumerate(_trees(_decoded(text)), 1):
            for line_of, path, one in _flattened(line, tree):
                read = _object(one, path)
                problems += [Problem(at, what, source, index, where or line_of) for at, what, where in read.problems]
                if read.obj is not None and read.kind is not None:
                    found.append(Document(index, line_of, read.obj, read.kind))
    except Malformed as error:
        problems.append(Problem("", str(error), source, 0, error.line))
    if problems:
        raise Invalid("cannot read the manifest", problems)
    return found


def from_json(text: str | bytes, message_cls: type[M]) -> M:
    """The message that a JSON object encodes; Invalid carries every field that is wrong."""
    reader, message = Reader(), message_cls()
    try:
        reader.message(trees.from_json(text), message, "")
    except Malformed as error:
        raise Invalid("cannot read the JSON", [Problem("", str(error), line=error.line)]) from None
    if reader.problems:
        raise Invalid("cannot read the JSON", [FieldError(path, what) for path, what, _ in reader.problems])
    return message


def from_tree(tree: Any, message_cls: type[M]) -> M:
    """The message that plain dicts, lists and scalars (JSON's types) encode; Invalid as from_json."""
    reader, message = Reader(), message_cls()
    reader.message(tree, message, "")
    if reader.problems:
        raise Invalid("cannot read the object", [FieldError(path, what) for path, what, _ in reader.problems])
    return message


def _decoded(text: str | bytes) -> str:
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Malformed(f"not UTF-8: {error.reason}", text.count(b"\n", 0, error.start) + 1) from None


def _trees(text: str) -> Iterator[tuple[int, Any]]:
    """YAML, and JSON where YAML cannot read it (escaped surrogate pairs)."""
    if not text.lstrip().startswith("{"):
        return trees.from_yaml(text)
    try:
        return iter(list(trees.from_yaml(text)))
    except Malformed as of_yaml:
        try:
            return iter([(1, trees.from_json(text))])
        except Malformed:
            raise of_yaml from None


def _flattened(line: int, tree: Any) -> Iterator[tuple[int, str, Any]]:
    """(line, path prefix, tree) of every object; none for an empty document."""
    if tree is None:
        return
    name = tree.get("kind") if isinstance(tree, dict) else None
    is_list = isinstance(name, str) and (name == "List" or (name.endswith("List") and name[:-4] in KINDS))
    if not is_list or not isinstance(tree.get("items"), list):
        yield line, "", tree
        return
    items = tree["items"]
    for position, item in enumerate(items):
        marks = getattr(items, "marks", None)
        yield marks[position].line if marks else line, f"items[{position}].", item


@dataclass(slots=True)
class _Read:
    """The outcome of one object: the message, or what is wrong as (path, message, line)."""

    obj: Message | None
    kind: Kind | None
    problems: list[tuple[str, str, int]]


def _object(tree: Any, path: str) -> _Read:
    if not isinstance(tree, dict):
        return _Read(None, None, [(path.rstrip("."), "expected an object with apiVersion and kind", 0)])
    kind, problem = _kind(tree)
    if kind is None:
        at, what = problem
        return _Read(None, None, [(path + at, what, _line(tree, at))])
    reader, message = Reader(), kind.message()
    reader.message(tree, message, path)
    return _Read(message, kind, reader.problems)


def _kind(tree: dict[str, Any]) -> tuple[Kind | None, tuple[str, str]]:
    for field in ("kind", "apiVersion"):
        if not isinstance(tree.get(field), str) or not tree[field]:
            return None, (field, "required: a string that selects what this object is")
    name, version = tree["kind"], tree["apiVersion"]
    kind = KINDS.get(name)
    if kind is None:
        near = get_close_matches(name, KINDS, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        return None, ("kind", f'unknown kind "{name}"; {hint}known kinds: {", ".join(sorted(KINDS))}')
    if kind.api_version != version:
        return None, ("apiVersion", f'"{version}" has no {name}; use {kind.api_version}')
    return kind, ("", "")


def _line(tree: dict[str, Any], key: str) -> int:
    if not isinstance(tree, MarkedMap):
        return 0
    return tree.marks[key].line if key in tree.marks else tree.line
