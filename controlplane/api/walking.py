"""Walks over messages that only look where something can be found: a plan for each message type, made once. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from podplane.manifest.schema import Field, Shape, fields


@dataclass(frozen=True, slots=True)
class Step:
    """One field of a plan."""

    name: str
    is_map: bool
    single: bool

    def value(self, message: Message) -> Any:
        """Its value; None where it is unset or empty. Every single field knows unset from zero (D1)."""
        if self.single:
            return getattr(message, self.name) if message.HasField(self.name) else None
        return getattr(message, self.name) or None


@dataclass(frozen=True, slots=True)
class Plan:
    """Where to look in a message: the wanted fields themselves, and the messages below which there are some."""

    wanted: tuple[Step, ...]
    nested: tuple[Step, ...]

    def __bool__(self) -> bool:
        return bool(self.wanted or self.nested)


class Plans:
    """The plans for fields of one sort, by message type."""

    def __init__(self, is_wanted: Callable[[Descriptor, Field], bool]) -> None:
        self._is_wanted = is_wanted
        self._plans: dict[object, Plan] = {}

    def of(self, message: Message) -> Plan:
        """The plan for messages of this one's type."""
        return self._plans.get(message.DESCRIPTOR) or self._of(message.DESCRIPTOR)  # type: ignore[arg-type]

    def _of(self, descriptor: Descriptor) -> Plan:
        if descriptor not in self._plans:
            self._plans[descriptor] = self._made(descriptor)
        return self._plans[descriptor]

    def _made(self, descriptor: Descriptor) -> Plan:
        wanted, nested = [], []
        for field in fields(descriptor).values():
            step = Step(field.name, field.is_map, not (field.is_list or field.is_map))
            if self._is_wanted(descriptor, field):
                wanted.append(step)
            elif field.shape is Shape.MESSAGE and not field.is_map and field.message and self._of(field.message):
                nested.append(step)
        return Plan(tuple(wanted), tuple(nested))
