"""Fields that take a number or a string (google.protobuf.Value): percentages and named ports. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from google.protobuf.struct_pb2 import Value

from podplane.v1 import container_pb2

_PERCENT = re.compile(r"([0-9]{1,9})%")


def of(value: int | str) -> Value:
    """The field's value that a number or a string makes."""
    return Value(string_value=value) if isinstance(value, str) else Value(number_value=value)


def number(value: Value) -> int | None:
    """The number, or None where it is a string or nothing."""
    return int(value.number_value) if value.WhichOneof("kind") == "number_value" else None


def percent(value: Value) -> int | None:
    """The number before the %, or None where it is not a percentage."""
    found = _PERCENT.fullmatch(value.string_value)
    return int(found[1]) if found else None


def scaled(value: Value, total: int, *, round_up: bool) -> int:
    """A number as it is, a percentage of `total`: maxSurge rounds up, maxUnavailable down. ValueError otherwise."""
    if (plain := number(value)) is not None:
        return plain
    share = percent(value)
    if share is None:
        raise ValueError(f'"{value.string_value}" is neither a number nor a percentage')
    return -(-share * total // 100) if round_up else share * total // 100


def resolve_port(
    value: Value, containers: Iterable[container_pb2.Container], protocol: str | None = None
) -> int | None:
    """The port that a targetPort or probe port means in these containers; None where no container names it so.

    `protocol` (TCP, UDP) restricts which ports a name may mean: services give it, probes do not.
    """
    if (plain := number(value)) is not None:
        return plain
    for container in containers:
        for port in container.ports:
            if port.name and port.name == value.string_value and protocol in (None, port.protocol or "TCP"):
                return port.containerPort
    return None
