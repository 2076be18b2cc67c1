"""The one printer: messages as kubectl prints them, keys in alphabetical order, integers as integers. Pure.

Cheap to import: YAML is imported when YAML is printed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from podplane.manifest.scalars import needs_quotes
from podplane.manifest.schema import Field, Shape, fields

JSON_INDENT = 4
"""As `kubectl get -o json`."""


def to_dict(message: Message) -> dict[str, Any]:
    """The message in JSON's types, fields that are set only, keys sorted; bytes as base64, times as RFC 3339."""
    plan = _plan(message.DESCRIPTOR)
    found = [(field.name, plan[field.name](value)) for field, value in message.ListFields()]
    found.sort()
    return dict(found)


def to_json(message: Message, indent: int | None = JSON_INDENT) -> str:
    """JSON text; `indent=None` gives one compact line."""
    return dump_json(to_dict(message), indent)


def to_yaml(message: Message) -> str:
    """YAML text, as `kubectl get -o yaml`."""
    return dump_yaml(to_dict(message))


def dump_json(tree: Any, indent: int | None = JSON_INDENT) -> str:
    """JSON text of plain dicts, lists and scalars, in the form of to_json."""
    return json.dumps(tree, indent=indent, ensure_ascii=False, separators=None if indent else (",", ":"))


def dump_yaml(tree: Any) -> str:
    """YAML text of plain dicts, lists and scalars, in the form of to_yaml."""
    import yaml

    return str(yaml.dump(tree, Dumper=_dumper(), sort_keys=False, width=_UNBROKEN, allow_unicode=True))


_UNBROKEN = 1 << 30


@cache
def _dumper() -> Any:
    import yaml

    class KubectlDumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        """Quotes what YAML 1.1 would not read back as a string, and writes no anchors."""

        def ignore_aliases(self, _data: Any) -> bool:
            return True

    def text(dumper: Any, value: str) -> Any:
        style = "|" if "\n" in value else '"' if needs_quotes(value) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    KubectlDumper.add_representer(str, text)
    return KubectlDumper


@cache
def _plan(descriptor: Descriptor) -> dict[str, Callable[[Any], Any]]:
    return {name: _printer(field) for name, field in fields(descriptor).items()}


def _printer(field: Field) -> Callable[[Any], Any]:
    one = _PRINTERS[field.shape]
    if field.is_map:
        return lambda value: {key: one(value[key]) for key in sorted(value)}
    if field.is_list:
        return lambda value: [one(item) for item in value]
    return one


def _same(value: Any) -> Any:
    return value


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _time(value: Timestamp) -> str:
    # Whole seconds, as Kubernetes' metav1.Time; the fraction is for our own eyes.
    return str(Timestamp(seconds=value.seconds).ToJsonString())


def _int_or_string(value: Value) -> int | str | None:
    match value.WhichOneof("kind"):
        case "number_value":
            return int(value.number_value)
        case "string_value":
            return value.string_value
        case _:
            return None


_PRINTERS: dict[Shape, Callable[[Any], Any]] = {
    Shape.STRING: _same,
    Shape.QUANTITY: _same,
    Shape.BOOL: _same,
    Shape.INTEGER: _same,
    Shape.BYTES: _base64,
    Shape.TIME: _time,
    Shape.INT_OR_STRING: _int_or_string,
    Shape.MESSAGE: to_dict,
}
