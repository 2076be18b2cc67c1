"""Hypothesis strategies for messages of any type, by descriptor: what reading, printing and merging must survive."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st

from podplane import quantity
from podplane.manifest.schema import Field, Shape, fields

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
KEYS = st.sampled_from(["a", "b", "c"])
_TRICKY = st.sampled_from(
    ["yes", "0777", "null", "1e3", "~", " lead", "a: b", "# c", "line\nline\n", "\t", "12:30:45", ""]
)


def _scalar(field: Field) -> st.SearchStrategy[Any]:
    match field.shape:
        case Shape.STRING:
            # A merge key, of few values so that items meet.
            return KEYS if field.name in ("name", "key", "type") else TEXT | _TRICKY
        case Shape.QUANTITY:
            return st.integers(-(10**6), 10**6).map(quantity.of_milli)
        case Shape.BOOL:
            return st.booleans()
        case Shape.INTEGER:
            return st.integers(*field.bounds)
        case Shape.BYTES:
            return st.binary(max_size=8)
        case Shape.TIME:
            return st.integers(0, 2**32).map(lambda seconds: Timestamp(seconds=seconds))
        case Shape.INT_OR_STRING:
            return st.integers(-(2**31), 2**31 - 1).map(lambda n: Value(number_value=n)) | TEXT.map(
                lambda text: Value(string_value=text)
            )
        case Shape.MESSAGE:
            raise AssertionError("a message is not a scalar")


@st.composite
def messages(draw: st.DrawFn, message: type[Message], depth: int = 5) -> Any:
    """A message with some of its fields set, nested up to `depth`."""
    result = message()
    known = list(fields(result.DESCRIPTOR).values())
    if not known:
        return result
    for field in draw(st.lists(st.sampled_from(known), max_size=4, unique_by=lambda field: field.name)):
        _fill(draw, result, field, depth)
    return result


def _fill(draw: st.DrawFn, result: Message, field: Field, depth: int) -> None:
    target = getattr(result, field.name)
    if field.shape is Shape.MESSAGE:
        assert field.message is not None
        nested = messages(GetMessageClass(field.message), depth - 1)
        if depth == 0:
            return
        if field.is_list:
            target.extend(draw(st.lists(nested, max_size=3)))
        else:
            target.CopyFrom(draw(nested))
            target.SetInParent()
    elif field.is_map:
        target.update(draw(st.dictionaries(KEYS, _scalar(field), max_size=3)))
    elif field.is_list:
        target.extend(draw(st.lists(_scalar(field), max_size=3)))
    elif isinstance(value := draw(_scalar(field)), Message):
        target.CopyFrom(value)
    else:
        setattr(result, field.name, value)
