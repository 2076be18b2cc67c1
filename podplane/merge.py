"""The three-way merge of `apply`: what the writer said last, what is live, what the writer says now.

Pure, over descriptors; the options listKeys, listSet, atomic and atomicField of the protos say how lists and messages
merge, as Kubernetes' strategic merge patch does. A field that was in `last` and is not in `new` is removed, what
`new` says is set, and everything else of `live` (defaults, what the scheduler and controllers wrote) stays. An empty
list or map is the same as an absent one. Status and the metadata that the server owns are never taken from `new`.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, TypeVar

from google.protobuf.message import Message

from podplane.manifest.schema import Field, Shape, fields

M = TypeVar("M", bound=Message)

SERVER_OWNED = (
    "name",
    "generateName",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
_KEY_DEFAULTS = {"protocol": "TCP"}
"""A key that defaulting fills in must match the live item whether the manifest writes it or not."""

_RETAIN_KEYS = frozenset({"podplane.v1.Volume", "podplane.v1.DeploymentStrategy"})
"""Kubernetes' patchStrategy retainKeys: once such a message changes, what `new` does not name goes. Without it a
defaulted rollingUpdate would outlive a change to Recreate."""

_TOP_LEVEL_KEPT = ("status",)


def three_way(last: M | None, live: M, new: M) -> M:
    """`live` as it should be after applying `new`; the arguments are not changed."""
    result = _copy(live)
    _message(last if last is not None else type(live)(), result, new)
    for name in _TOP_LEVEL_KEPT:
        if name in live.DESCRIPTOR.fields_by_name:
            _keep(live, result, name)
    if "metadata" in live.DESCRIPTOR.fields_by_name:
        for name in SERVER_OWNED:
            _keep(live.metadata, result.metadata, name)  # type: ignore[attr-defined]
    return result


def _copy(message: M) -> M:
    copied = type(message)()
    copied.CopyFrom(message)
    return copied


def _keep(live: Message, result: Message, name: str) -> None:
    if not live.HasField(name):
        if result.HasField(name):  # clearing an unset field would make its parent present
            result.ClearField(name)
    elif isinstance(value := getattr(live, name), Message):
        getattr(result, name).CopyFrom(value)
    else:
        setattr(result, name, value)


def _message(last: Message, result: Message, new: Message) -> None:
    """Merge into `result`, which starts as the live message."""
    for field in fields(result.DESCRIPTOR).values():
        if field.is_map and not field.atomic:
            _map(getattr(last, field.name), getattr(result, field.name), getattr(new, field.name))
        elif field.is_list:
            _list(field, last, result, new)
        elif field.shape is Shape.MESSAGE and not field.atomic:
            _nested(field.name, last, result, new)
        else:
            _whole(field, last, result, new)


def _present(message: Message, field: Field) -> bool:
    if field.is_list or field.is_map:
        return len(getattr(message, field.name)) > 0
    return message.HasField(field.name)


def _whole(field: Field, last: Message, result: Message, new: Message) -> None:
    """A value that merges as one: set, removed, or left alone."""
    if not _present(new, field):
        if _present(last, field):
            result.ClearField(field.name)
        return
    value = getattr(new, field.name)
    if field.is_map:
        result.ClearField(field.name)
        getattr(result, field.name).update(value)
    elif field.is_list:
        result.ClearField(field.name)
        getattr(result, field.name).extend(value)
    elif isinstance(value, Message):
        getattr(result, field.name).CopyFrom(value)
    else:
        setattr(result, field.name, value)


def _map(last: Any, result: Any, new: Any) -> None:
    for key in last:
        if key not in new:
            result.pop(key, None)
    result.update(new)


def _nested(name: str, last: Message, result: Message, new: Message) -> None:
    if not new.HasField(name):
        if last.HasField(name):
            result.ClearField(name)
        return
    target = getattr(result, name)
    target.SetInParent()
    _merged(getattr(last, name), target, getattr(new, name))


def _merged(last: Message, target: Message, new: Message) -> None:
    """Merge one message or list item in place, with retainKeys where Kubernetes has it."""
    if target.DESCRIPTOR.full_name not in _RETAIN_KEYS:
        _message(last, target, new)
        return
    before = _copy(target)
    _message(last, target, new)
    if target != before:
        for field in fields(target.DESCRIPTOR).values():
            if not _present(new, field):
                target.ClearField(field.name)


def _list(field: Field, last: Message, result: Message, new: Message) -> None:
    if field.is_set:
        _set(*(getattr(message, field.name) for message in (last, result, new)))
    elif field.list_keys:
        _keyed(field, *(getattr(message, field.name) for message in (last, result, new)))
    else:
        _whole(field, last, result, new)


def _set(last: Any, result: Any, new: Any) -> None:
    gone = set(last) - set(new)
    kept = [value for value in result if value not in gone and value not in new]
    result[:] = [*new, *kept]


def _keyed(field: Field, last: Any, result: Any, new: Any) -> None:
    """Items by key, in the order of `new`, then those of `live` that the writer never named.

    Items of `new` that share a key stay two items: validation is what refuses them, or, for env, allows them.
    """
    lasts, lives = _by_key(field, last), _by_key(field, result)
    merged: list[Message] = []
    for wanted in new:
        key = _key(field, wanted)
        item = lives[key].pop(0) if lives[key] else type(wanted)()
        known = lasts[key].pop(0) if lasts[key] else type(wanted)()
        _item(field, known, item, wanted)
        merged.append(item)
    merged += [item for key, items in lives.items() if key not in lasts for item in items]
    del result[:]
    result.extend(merged)


def _item(field: Field, last: Message, item: Message, new: Message) -> None:
    if field.atomic:
        item.CopyFrom(new)
    else:
        _merged(last, item, new)


def _by_key(field: Field, items: Any) -> defaultdict[tuple[Any, ...], list[Message]]:
    found: defaultdict[tuple[Any, ...], list[Message]] = defaultdict(list)
    for item in items:
        found[_key(field, item)].append(_copy(item))
    return found


def _key(field: Field, item: Message) -> tuple[Any, ...]:
    return tuple(_key_part(item, name) for name in field.list_keys)


def _key_part(item: Message, name: str) -> Any:
    written = getattr(item, name) if item.HasField(name) else None
    # An empty part is defaulted as an absent one is.
    return written or _KEY_DEFAULTS.get(name, written)
