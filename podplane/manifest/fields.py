"""From trees to fields: sets a message from plain dicts, lists and scalars, and notes everything that does not fit.

Pure. Trees with marks (YAML) give lines and the spelling that the writer used; plain ones give line 0.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from podplane import quantity
from podplane.manifest.schema import Field, Shape, fields
from podplane.manifest.trees import MarkedList, MarkedMap

_WORDS = re.compile(r"[_-]+([a-zA-Z0-9])")
_LONGEST_SHOWN = 80


class _Mismatch(Exception):
    """The value does not fit its field; the message is for people."""


class Reader:
    """One walk over one tree. `problems` collects (field path, message, line)."""

    def __init__(self) -> None:
        self.problems: list[tuple[str, str, int]] = []

    def message(self, tree: Any, message: Message, path: str) -> None:
        """Set the fields of `message` from `tree`; `path` ("" or ending in a dot) precedes the names of its fields."""
        if not isinstance(tree, dict):
            self.problems.append((path.rstrip("."), f"expected an object, got {_shown(tree, '')}", 0))
            return
        known = fields(message.DESCRIPTOR)
        for name, value in tree.items():
            field = known.get(name)
            if field is None:
                self._problem(tree, name, path + name, "unknown field" + _suggestion(name, known))
            elif value is not None:
                self._field(tree, field, value, message, path + name)

    def _field(self, tree: dict[str, Any], field: Field, value: Any, message: Message, path: str) -> None:
        if field.is_map:
            self._map(tree, field, value, getattr(message, field.name), path)
        elif field.is_list:
            self._list(tree, field, value, getattr(message, field.name), path)
        elif field.shape is Shape.MESSAGE:
            target = getattr(message, field.name)
            target.SetInParent()
            self._nested(tree, field.name, value, target, path)
        else:
            converted = self._converted(tree, field.name, field, value, path)
            if isinstance(converted, Message):
                getattr(message, field.name).CopyFrom(converted)
            elif converted is not None:
                setattr(message, field.name, converted)

    def _map(self, tree: dict[str, Any], field: Field, value: Any, target: Any, path: str) -> None:
        if not isinstance(value, dict):
            self._problem(tree, field.name, path, f"expected an object, got {_shown(value, _text(tree, field.name))}")
            return
        for key, one in value.items():
            # Kubernetes reads `key:` without a value in a map as the empty value, and keeps the key.
            empty = "0" if field.shape is Shape.QUANTITY else ""
            converted = self._converted(value, key, field, empty if one is None else one, f"{path}[{key}]")
            if converted is not None:
                target[key] = converted

    def _list(self, tree: dict[str, Any], field: Field, value: Any, target: Any, path: str) -> None:
        if not isinstance(value, list):
            self._problem(tree, field.name, path, f"expected a list, got {_shown(value, _text(tree, field.name))}")
            return
        for index, one in enumerate(value):
            if field.shape is Shape.MESSAGE:
                self._nested(value, index, one, target.add(), f"{path}[{index}]")
            else:
                converted = self._converted(value, index, field, one, f"{path}[{index}]")
                if converted is not None:
                    target.append(converted)

    def _nested(self, tree: Any, key: Any, value: Any, target: Message, path: str) -> None:
        if isinstance(value, dict):
            self.message(value, target, path + ".")
        else:
            self._problem(tree, key, path, f"expected an object, got {_shown(value, _text(tree, key))}")

    def _converted(self, tree: Any, key: Any, field: Field, value: Any, path: str) -> Any:
        """What the field holds; None after a problem was noted."""
        try:
            return _CONVERTERS[field.shape](value, _text(tree, key), field)
        except _Mismatch as mismatch:
            self._problem(tree, key, path, str(mismatch))
            return None

    def _problem(self, tree: Any, key: Any, path: str, message: str) -> None:
        line = tree.marks[key].line if isinstance(tree, MarkedMap | MarkedList) else 0
        self.problems.append((path, message, line))


def _text(tree: Any, key: Any) -> str:
    return tree.marks[key].text if isinstance(tree, MarkedMap | MarkedList) else ""


def _suggestion(name: str, known: dict[str, Field]) -> str:
    camel = _WORDS.sub(lambda found: found[1].upper(), name)
    for candidate in known:
        if candidate.lower() == camel.lower():
            return f"; did you mean {candidate}?"
    near = get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else ""


def _shown(value: Any, text: str) -> str:
    """What a person wrote, for messages: `the boolean yes`, `a list`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"the boolean {text or str(value).lower()}"
    if isinstance(value, int | float):
        return f"the number {text or value}"
    if isinstance(value, str):
        return f'the string "{value if len(value) <= _LONGEST_SHOWN else value[:_LONGEST_SHOWN] + "..."}"'
    return "a list" if isinstance(value, list) else "an object"


def _string(value: Any, text: str, _field: Field) -> str:
    if isinstance(value, str):
        if not value.isascii():
            _require_unicode(value)
        return value
    hint = f'; quote it: "{text or str(value)}"' if isinstance(value, bool | int | float) else ""
    raise _Mismatch(f"expected a string, got {_shown(value, text)}{hint}")


def _require_unicode(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Mismatch("expected Unicode text, got a lone surrogate") from None


def _bool(value: Any, text: str, _field: Field) -> bool:
    if isinstance(value, bool):
        return value
    raise _Mismatch(f"expected true or false, got {_shown(value, text)}")


def _integer(value: Any, text: str, field: Field) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _Mismatch(f"expected an integer, got {_shown(value, text)}")
    low, high = field.bounds
    if not low <= value <= high:
        raise _Mismatch(f"expected an integer from {low} to {high}, got {value}")
    return value


def _quantity(value: Any, text: str, _field: Field) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _Mismatch(f"expected a quantity, got {_shown(value, text)}")
    try:
        return quantity.canonical(str(value))
    except ValueError as error:
        raise _Mismatch(str(error)) from None


def _bytes(value: Any, text: str, field: Field) -> bytes:
    encoded = _string(value, text, field)
    try:
        return base64.b64decode(encoded.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        # Not shown: what stands here is often a secret that its writer forgot to encode.
        raise _Mismatch("expected base64; plain text goes into stringData (Secret) or data (ConfigMap)") from None


def _time(value: Any, text: str, field: Field) -> Timestamp:
    stamp = Timestamp()
    try:
        stamp.FromJsonString(_string(value, text, field))
    except ValueError:
        raise _Mismatch(f'expected a time like "2006-01-02T15:04:05Z", got {_shown(value, text)}') from None
    return stamp


def _int_or_string(value: Any, text: str, field: Field) -> Value:
    if isinstance(value, str):
        return Value(string_value=_string(value, text, field))
    if isinstance(value, bool) or not isinstance(value, int) or not -(1 << 31) <= value < 1 << 31:
        raise _Mismatch(f"expected an integer or a string, got {_shown(value, text)}")
    return Value(number_value=value)


_CONVERTERS: dict[Shape, Callable[[Any, str, Field], Any]] = {
    Shape.STRING: _string,
    Shape.QUANTITY: _quantity,
    Shape.BOOL: _bool,
    Shape.INTEGER: _integer,
    Shape.BYTES: _bytes,
    Shape.TIME: _time,
    Shape.INT_OR_STRING: _int_or_string,
}
