"""A pod's state to a journal record and back. Pure. The spec is not in it: it is kept in a file of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from nodeagent.pods.state import UP, ContainerState, Ended, Part, PodState, new_state
from podplane.v1.pod_pb2 import Pod

_OUTSIDE = frozenset({"pod", "qos", "history", "init", "apps", "sandbox", "volumes"})
_OF_SPEC = frozenset({"uid", "name", "image", "init", "sidecar", "waits_for_startup", "waits_for_readiness",
                      "post_start", "pre_stop"})  # fmt: skip
"""What new_state() takes from the spec, which may be another one by then: always written."""


def _blank(kind: type[Any]) -> dict[str, Any]:
    """Each field, with what it is where nothing has been done yet; what is equal to that is left out of a record."""
    fields = [f for f in dataclasses.fields(kind) if f.name not in _OUTSIDE or kind is not PodState]
    return {f.name: ... if f.name in _OF_SPEC else _default(f) for f in fields}


def _default(found: dataclasses.Field[Any]) -> Any:
    return found.default if found.default_factory is dataclasses.MISSING else found.default_factory()


_PLAIN, _CONTAINER, _PART, _ENDED = map(_blank, (PodState, ContainerState, Part, Ended))

Instances = tuple[tuple[str, int], ...]
"""Container and attempt of each."""


def encode(state: PodState) -> dict[str, Any]:
    """JSON-able, and whole but for the spec and the history. What was not touched yet is left out."""
    return {
        **_fields(state, _PLAIN),
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
        if name in found:
            found[name] = _fields(found[name], _ENDED)
    return found


def _fields(thing: object, blank: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, default in blank.items() if (value := getattr(thing, name)) != default}


def _set(thing: object, values: dict[str, Any], names: Iterable[str]) -> None:
    for name in names:
        if name in values:
            setattr(thing, name, values[name])


def _read_ended(values: Any) -> Ended | None:
    return None if values is None else Ended(**{name: values[name] for name in _ENDED if name in values})
