"""A pod's state to a journal record and back. Pure. The spec is not in it: it is kept in a file of its own."""

from __future__ import annotations

import dataclasses
from typing import Any

from nodeagent.pods.state import UP, ContainerState, Ended, Part, PodState, new_state
from podplane.v1.pod_pb2 import Pod

_OUTSIDE = frozenset({"pod", "history", "init", "apps", "sandbox", "volumes"})
_PLAIN = tuple(f.name for f in dataclasses.fields(PodState) if f.name not in _OUTSIDE)
_CONTAINER = tuple(f.name for f in dataclasses.fields(ContainerState))
_PART = tuple(f.name for f in dataclasses.fields(Part))
_ENDED = tuple(f.name for f in dataclasses.fields(Ended))

Instances = tuple[tuple[str, int], ...]
"""Container and attempt of each."""


def encode(state: PodState) -> dict[str, Any]:
    """JSON-able, and whole but for the spec and the history."""
    return {
        **{name: getattr(state, name) for name in _PLAIN},
        "sandbox": _fields(state.sandbox, _PART),
        "volumes": _fields(state.volumes, _PART),
        "init": [_container(container) for container in state.init],
        "apps": [_container(container) for container in state.apps],
    }


def decode(record: dict[str, Any], pod: Pod) -> PodState:
    """The state that `record` holds, for the spec `pod`.

    A container that the record does not know starts blank, a field that this version does not know is dropped: a
    newer agent reads what an older one wrote, and the other way round.
    """
    state = new_state(pod)
    for name in _PLAIN:
        if name in record:
            setattr(state, name, record[name])
    state.since = {type_: (status, at) for type_, (status, at) in state.since.items()}
    _set(state.sandbox, record.get("sandbox", {}), _PART)
    _set(state.volumes, record.get("volumes", {}), _PART)
    known = {item["name"]: item for item in (*record.get("init", ()), *record.get("apps", ()))}
    for container in state.containers:
        _set(container, known.get(container.name, {}), _CONTAINER)
        container.ended, container.last = _read_ended(container.ended), _read_ended(container.last)
    return state


def durable(state: PodState) -> tuple[Any, ...]:
    """What must survive power loss: when this differs, the record is synced before anything is done."""
    return (
        state.final,
        state.address,
        bool(state.volumes.attempt),
        state.deleted,
        tuple((container.name, container.exits, container.done) for container in state.containers),
    )


def begun(state: PodState) -> Instances:
    """The instances that run. After a boot they must be told as ended, and not begun again under the same name."""
    return tuple((container.name, container.attempt) for container in state.containers if container.stage in UP)


def _container(container: ContainerState) -> dict[str, Any]:
    found = _fields(container, _CONTAINER)
    for name in ("ended", "last"):
        if found[name] is not None:
            found[name] = _fields(found[name], _ENDED)
    return found


def _fields(thing: object, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(thing, name) for name in names}


def _set(thing: object, values: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if name in values:
            setattr(thing, name, values[name])


def _read_ended(values: Any) -> Ended | None:
    return None if values is None else Ended(**{name: values[name] for name in _ENDED if name in values})
