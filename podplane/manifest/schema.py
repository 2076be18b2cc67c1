"""What reading, printing and merging need to know about a message's fields, worked out once per descriptor. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from podplane.v1 import options_pb2

Type = FieldDescriptor


class Shape(Enum):
    """What a field's value, or an item or map value of it, is."""

    STRING = auto()
    QUANTITY = auto()
    BOOL = auto()
    INTEGER = auto()
    BYTES = auto()
    TIME = auto()
    INT_OR_STRING = auto()
    MESSAGE = auto()


_SCALARS: dict[int, Shape] = {
    Type.CPPTYPE_STRING: Shape.STRING,
    Type.CPPTYPE_BOOL: Shape.BOOL,
    Type.CPPTYPE_INT32: Shape.INTEGER,
    Type.CPPTYPE_INT64: Shape.INTEGER,
    Type.CPPTYPE_UINT32: Shape.INTEGER,
    Type.CPPTYPE_UINT64: Shape.INTEGER,
}
_RANGES: dict[int, tuple[int, int]] = {
    Type.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    Type.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    Type.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    Type.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}
_WELL_KNOWN = {"google.protobuf.Timestamp": Shape.TIME, "google.protobuf.Value": Shape.INT_OR_STRING}


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its name (which is its JSON name), its shape, and how it merges."""

    name: str
    shape: Shape
    is_map: bool
    is_list: bool
    bounds: tuple[int, int]
    list_keys: tuple[str, ...]
    is_set: bool
    atomic: bool
    message: Descriptor | None


@cache
def fields(descriptor: Descriptor) -> dict[str, Field]:
    """The fields of a message by name, in the order of the proto file."""
    return {field.name: _field(field) for field in descriptor.fields}


def _field(field: FieldDescriptor) -> Field:
    options = field.GetOptions().Extensions
    entry = field.message_type
    is_map = entry is not None and entry.GetOptions().map_entry
    value = entry.fields_by_name["value"] if entry is not None and is_map else field
    message = value.message_type
    shape = Shape.QUANTITY if options[options_pb2.quantity] else _shape(value)
    return Field(
        name=field.name,
        shape=shape,
        is_map=is_map,
        is_list=field.is_repeated and not is_map,
        bounds=_RANGES.get(value.cpp_type, (0, 0)),
        list_keys=tuple(options[options_pb2.listKeys]),
        is_set=options[options_pb2.listSet],
        atomic=options[options_pb2.atomicField]
        or shape in (Shape.TIME, Shape.INT_OR_STRING)
        or (message is not None and message.GetOptions().Extensions[options_pb2.atomic]),
        message=message,
    )


def _shape(field: FieldDescriptor) -> Shape:
    if field.message_type is not None:
        return _WELL_KNOWN.get(field.message_type.full_name, Shape.MESSAGE)
    if field.type == Type.TYPE_BYTES:
        return Shape.BYTES
    return _SCALARS[field.cpp_type]
