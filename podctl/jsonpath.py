"""kubectl's JSONPath templates over plain data: `{.items[*].metadata.name}`, filters, ranges and literal text. Pure.

What it knows: fields (`.a`, `['a.b']`, `\\.` in a name), `[0]`, `[-1]`, `[1:3]`, `[*]`, `..name`,
`[?(@.type=="Ready")]` with == != < <= > >=, `{range}`/`{end}`, quoted text. A path that does not exist gives nothing.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Step = Callable[[Any], Iterator[Any]]

_TOKEN = re.compile(
    r"""
      (?P<recursive>\.\.(?P<deep>\*|(?:\\.|[^.\[\]{}\\])+))
    | \.(?P<field>\*|(?:\\.|[^.\[\]{}\\])+)
    | \[(?P<quote>['"])(?P<quoted>.*?)(?P=quote)\]
    | \[\?\((?P<filter>.*?)\)\]
    | \[(?P<index>[^\]]*)\]
    | (?P<dot>\.)$
    """,
    re.VERBOSE,
)
_COMPARE = re.compile(r"^\s*@(?P<path>.*?)\s*(?:(?P<operator>==|!=|<=|>=|<|>)\s*(?P<value>.+?))?\s*$")
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class JSONPathError(ValueError):
    """The template is wrong; the message says where."""


def find(expression: str, data: Any) -> list[Any]:
    """Every value that one path (`.status.phase`, braces optional) selects."""
    path = expression.strip()
    if path.startswith("{") and path.endswith("}"):
        path = path[1:-1].strip()
    return list(_walk(_steps(path), data))


def render(template: str, data: Any) -> str:
    """A template's text: literals as they are, each `{path}` as its values separated by spaces."""
    parts = _parts(template)
    text, rest = _render(parts, 0, data)
    if rest != len(parts):
        raise JSONPathError("{end} without {range}")
    return text


def text_of(value: Any) -> str:
    """A value as kubectl prints it: strings bare, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class _Part:
    kind: str  # text, path, range or end
    body: str


def _parts(template: str) -> list[_Part]:
    parts: list[_Part] = []
    position = 0
    while position < len(template):
        brace = template.find("{", position)
        if brace < 0:
            parts.append(_Part("text", template[position:]))
            break
        if brace > position:
            parts.append(_Part("text", template[position:brace]))
        end = _closing(template, brace)
        parts.append(_expression(template[brace + 1 : end].strip()))
        position = end + 1
    return parts


def _closing(template: str, brace: int) -> int:
    quote = ""
    for index in range(brace + 1, len(template)):
        character = template[index]
        if quote:
            quote = "" if character == quote and template[index - 1] != "\\" else quote
        elif character in "'\"":
            quote = character
        elif character == "}":
            return index
    raise JSONPathError(f"unclosed action: {template[brace:]}")


def _expression(body: str) -> _Part:
    if body == "end":
        return _Part("end", "")
    if body.startswith("range ") or body == "range":
        return _Part("range", body[5:].strip())
    if body[:1] in ("'", '"') and body[-1:] == body[:1] and len(body) > 1:
        plain = body[1:-1]
        for code, character in (("\\n", "\n"), ("\\t", "\t"), ('\\"', '"'), ("\\'", "'")):
            plain = plain.replace(code, character)
        return _Part("text", plain)
    return _Part("path", body)


def _render(parts: list[_Part], start: int, data: Any) -> tuple[str, int]:
    """The text from `start` up to the matching end, and the index of that end."""
    output: list[str] = []
    index = start
    while index < len(parts):
        part = parts[index]
        if part.kind == "end":
            return "".join(output), index
        if part.kind == "text":
            output.append(part.body)
        elif part.kind == "path":
            output.append(" ".join(text_of(value) for value in find(part.body, data)))
        else:
            text, index = _range(parts, index, data)
            output.append(text)
        index += 1
    return "".join(output), index


def _range(parts: list[_Part], index: int, data: Any) -> tuple[str, int]:
    rendered = [_render(parts, index + 1, item)[0] for item in find(parts[index].body, data)]
    _, end = _render(parts, index + 1, {})
    if end >= len(parts):
        raise JSONPathError("{range} without {end}")
    return "".join(rendered), end


def _steps(path: str) -> list[Step]:
    body = path[1:] if path[:1] in ("$", "@") else path
    if body and body[0] not in ".[":
        body = f".{body}"
    steps: list[Step] = []
    position = 0
    while position < len(body):
        match = _TOKEN.match(body, position)
        if match is None:
            raise JSONPathError(f"cannot read {body[position:]!r} in the path {path!r}")
        if not match["dot"]:
            steps.append(_step(match))
        position = match.end()
    return steps


def _step(match: re.Match[str]) -> Step:
    if match["deep"]:
        return _recursive(_plain(match["deep"]))
    if match["field"]:
        return _field(_plain(match["field"]))
    if match["quoted"] is not None:
        return _field(match["quoted"])
    if match["filter"] is not None:
        return _filter(match["filter"])
    return _index(match["index"].strip())


def _plain(name: str) -> str:
    return re.sub(r"\\(.)", r"\1", name).strip()


def _walk(steps: list[Step], data: Any) -> Iterator[Any]:
    values = iter((data,))
    for step in steps:
        values = _each(step, values)
    return values


def _each(step: Step, values: Iterator[Any]) -> Iterator[Any]:
    for value in values:
        yield from step(value)


def _field(name: str) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if name == "*":
            yield from value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        elif isinstance(value, dict) and name in value:
            yield value[name]

    return step


def _recursive(name: str) -> Step:
    here = _field(name)

    def step(value: Any) -> Iterator[Any]:
        yield from here(value)
        for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from step(child)

    return step


def _index(text: str) -> Step:
    if text == "*":
        return _field("*")
    try:
        numbers = [int(part) if part else None for part in text.split(":")]
    except ValueError:
        raise JSONPathError(f"invalid array index {text}") from None
    if len(numbers) > 3 or numbers == [None]:
        raise JSONPathError(f"invalid array index {text}")

    def step(value: Any) -> Iterator[Any]:
        if not isinstance(value, list):
            return
        if len(numbers) > 1:
            yield from value[slice(*numbers)]
        elif numbers[0] is not None and -len(value) <= numbers[0] < len(value):
            yield value[numbers[0]]

    return step


def _filter(text: str) -> Step:
    match = _COMPARE.match(text)
    if match is None:
        raise JSONPathError(f'cannot read the filter {text!r}: write it as ?(@.type=="Ready")')
    steps = _steps(match["path"])
    wanted = _literal(match["value"]) if match["operator"] else None

    def keeps(item: Any) -> bool:
        found = list(_walk(steps, item))
        if not match["operator"]:
            return bool(found)
        return any(_compare(match["operator"], value, wanted) for value in found)

    def step(value: Any) -> Iterator[Any]:
        items = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
        yield from (item for item in items if keeps(item))

    return step


def _compare(symbol: str, left: Any, right: Any) -> bool:
    if isinstance(left, str) != isinstance(right, str):
        return symbol == "!="
    try:
        return _OPERATORS[symbol](left, right)
    except TypeError:
        return False


def _literal(text: str) -> Any:
    if text[:1] in "'\"" and text[-1:] == text[:1]:
        return text[1:-1]
    try:
        return json.loads(text)
    except ValueError:
        raise JSONPathError(f"cannot read the value {text!r}: quote strings") from None
