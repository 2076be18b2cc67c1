"""Objects on stdout in the format of -o: tables, YAML, JSON, names, JSONPath. Never asks the server anything."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podctl import jsonpath, tables
from podctl.failure import Failure
from podctl.resources import object_word
from podctl.tabwriter import Columns
from podplane.kinds import Kind, kind_of
from podplane.manifest import printing

FORMATS = ("wide", "name", "json", "yaml", "jsonpath", "jsonpath-as-json", "jsonpath-file", "custom-columns",
           "custom-columns-file")  # fmt: skip
_COLUMNS = "custom-columns"


@dataclass(frozen=True, slots=True)
class Format:
    """A parsed -o: `name` is empty for the plain table, `template` is set for JSONPath and custom columns."""

    name: str = ""
    template: str = ""

    @property
    def is_table(self) -> bool:
        return self.name in ("", "wide")


def parse_format(text: str | None, allowed: Sequence[str] = FORMATS) -> Format:
    """What `-o` says; Failure lists what there is."""
    name, _, template = (text or "").partition("=")
    if name and name not in allowed:
        raise Failure(
            f'error: unable to match a printer suitable for the output format "{name}", '
            f"allowed formats are: {','.join(allowed)}"
        )
    templated = name.startswith(("jsonpath", _COLUMNS))
    if templated and not template:
        example = "custom-columns=NAME:.metadata.name" if name.startswith(_COLUMNS) else "jsonpath='{.metadata.name}'"
        raise Failure(f"error: {name} format specified but no template given: -o {example}")
    if name.endswith("-file"):
        return _from_file(name.removesuffix("-file"), template)
    if template and not templated:
        raise Failure(f'error: the output format "{name}" takes no "={template}"')
    return Format(name, template)


def _from_file(name: str, path: str) -> Format:
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise Failure(f"error: error reading template {path}: {error.strerror}") from None
    if name == _COLUMNS:
        lines: list[list[str]] = [line.split() for line in text.splitlines() if line.strip()]
        if len(lines) != 2:
            raise Failure(f"error: {path} must hold two lines: the headers, and the JSONPaths below them")
        titles, paths = lines
        text = ",".join(f"{title}:{path}" for title, path in zip(titles, paths, strict=False))
    return Format(name, text)


def columns_of(template: str) -> list[tuple[str, str]]:
    """`NAME:.metadata.name,...` as titles and paths."""
    found = []
    for word in template.split(","):
        title, separator, path = word.partition(":")
        if not title or not separator or not path:
            raise Failure(f"error: unexpected custom-columns spec: {word}, expected <header>:<json-path-expr>")
        found.append((title, path))
    return found


def print_columns(objects: Sequence[Any], form: Format, *, headers: bool) -> None:
    """A row for each object, with the columns that -o custom-columns names."""
    wanted = columns_of(form.template)
    rows = [[title for title, _ in wanted]] if headers else []
    for obj in objects:
        data = tree(obj)
        rows.append([_cell(path, data) for _, path in wanted])
    for line in Columns().lines(rows):
        print(line)


def _cell(path: str, data: dict[str, Any]) -> str:
    try:
        return ",".join(jsonpath.text_of(value) for value in jsonpath.find(path, data)) or "<none>"
    except jsonpath.JSONPathError as error:
        raise Failure(f"error: custom-columns: {error}") from None


def tree(obj: Any) -> dict[str, Any]:
    """The object in JSON's types, with apiVersion and kind."""
    kind = kind_of(obj)
    found = {"apiVersion": kind.api_version, "kind": kind.name, **printing.to_dict(obj)}
    return dict(sorted(found.items()))


def as_list(objects: Sequence[Any]) -> dict[str, Any]:
    """kubectl's `kind: List` of objects."""
    return {
        "apiVersion": "v1",
        "items": [tree(obj) for obj in objects],
        "kind": "List",
        "metadata": {"resourceVersion": ""},
    }


def text(data: dict[str, Any], form: Format) -> str:
    """Data as json, yaml or JSONPath."""
    if form.name == "json":
        return printing.dump_json(data)
    if form.name == "yaml":
        return printing.dump_yaml(data).rstrip("\n")
    try:
        if form.name == "jsonpath-as-json":
            return json.dumps(jsonpath.find(form.template, data), indent=4, ensure_ascii=False)
        return jsonpath.render(form.template, data)
    except jsonpath.JSONPathError as error:
        raise Failure(f"error: error parsing jsonpath {form.template}: {error}") from None


def print_one(obj: Any, form: Format) -> None:
    """One object, in any format but a table."""
    if form.name == "name":
        print(object_word(kind_of(obj), obj.metadata.name))
    else:
        _write(text(tree(obj), form), form)


def print_list(objects: Sequence[Any], form: Format) -> None:
    """Many objects as one List, or one name a line."""
    if form.name == "name":
        for obj in objects:
            print_one(obj, form)
    else:
        _write(text(as_list(objects), form), form)


def _write(words: str, form: Format) -> None:
    print(words, end="" if form.name == "jsonpath" else "\n")


class DocumentPrinter:
    """Prints objects as they come, each a document of its own; flushed, because a reader waits for it."""

    def __init__(self, form: Format) -> None:
        self._form = form
        self._begun = False

    def print(self, obj: Any, event: str | None = None) -> None:
        """One object or, with an event, one change of a watch."""
        if self._form.name == "yaml" and self._begun:
            print("---")
        self._begun = True
        if event is None or self._form.name == "name":
            print_one(obj, self._form)
        else:
            _write(text({"object": tree(obj), "type": event}, self._form), self._form)
        print(end="", flush=True)


@dataclass(slots=True)
class TableOptions:
    """What a table shows besides its columns."""

    wide: bool = False
    headers: bool = True
    namespaces: bool = False
    labels: bool = False
    label_columns: tuple[str, ...] = ()
    kind_in_name: bool = False
    events: bool = False


class TablePrinter:
    """Prints the table of one kind, at once or, for a watch, row by row with columns that never shrink."""

    def __init__(self, kind: Kind, options: TableOptions) -> None:
        self._kind = kind
        self._options = options
        self._table = tables.table_of(kind.name)
        self._columns = Columns([len("MODIFIED") + 3] if options.events else [])
        self._begun = False

    def print(self, changes: Sequence[tuple[str, Any]]) -> None:
        """Rows for (event, object) pairs; the header comes before the first ones."""
        rows = [self._row(event, obj) for event, obj in changes]
        if not self._begun and self._options.headers:
            rows.insert(0, self._header())
        self._begun = True
        for line in self._columns.lines(rows):
            print(line)
        print(end="", flush=True)

    def _header(self) -> list[str]:
        options = self._options
        return [
            *(["EVENT"] if options.events else []),
            *(["NAMESPACE"] if options.namespaces else []),
            *self._table.header(options.wide),
            *(label.rpartition("/")[2].upper() for label in options.label_columns),
            *(["LABELS"] if options.labels else []),
        ]

    def _row(self, event: str, obj: Any) -> list[str]:
        options = self._options
        cells = self._table.row(obj, time.time(), options.wide)
        if options.kind_in_name and self._table.titles[0] == "NAME":
            cells[0] = object_word(self._kind, cells[0])
        return [
            *([event] if options.events else []),
            *([obj.metadata.namespace] if options.namespaces else []),
            *cells,
            *(obj.metadata.labels.get(label, "") for label in options.label_columns),
            *([tables.labels_text(obj.metadata.labels)] if options.labels else []),
        ]
