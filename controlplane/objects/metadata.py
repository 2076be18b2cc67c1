"""What the server alone decides about an object: identity, generation, and which half of it a write may touch.

Pure: time and uid arrive as arguments, and every function changes only the message that it is handed as `new`.
"""

from __future__ import annotations

import random
from typing import Any

from google.protobuf.message import Message

from controlplane.objects import words
from podplane.errors import FieldError, Invalid
from podplane.kinds import Kind
from podplane.times import stamp
from podplane.v1 import meta_pb2

MAX_OBJECT = 3 * 512 * 1024
"""Bytes of one object's encoding (etcd's bound for a request, and so Kubernetes'): 1.5 MiB."""

# Kubernetes' alphabet for generated names: no vowels and nothing that reads as another character.
_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 5
_GENERATED_PREFIX = 58  # a generated name fits a DNS label of 63 characters


def metadata_of(obj: Message) -> meta_pb2.ObjectMeta:
    metadata: meta_pb2.ObjectMeta = obj.metadata  # type: ignore[attr-defined]
    return metadata


def has_field(obj: Message, name: str) -> bool:
    """True where the kind has the field (`spec`, `status`)."""
    return name in obj.DESCRIPTOR.fields_by_name


def address(obj: Message, kind: Kind) -> tuple[str, str]:
    """Namespace and name of an object that is written. Invalid where they cannot make a key.

    A namespaced object without a namespace belongs to `default`.
    """
    metadata = metadata_of(obj)
    wrong = []
    if not metadata.name:
        wrong.append(FieldError("metadata.name", "Required value: name or generateName is required"))
    if "/" in metadata.name:
        wrong.append(FieldError("metadata.name", f"Invalid value: \"{metadata.name}\": may not contain '/'"))
    if "/" in metadata.namespace:
        wrong.append(FieldError("metadata.namespace", f"Invalid value: \"{metadata.namespace}\": may not contain '/'"))
    if metadata.namespace and not kind.namespaced:
        wrong.append(FieldError("metadata.namespace", "Forbidden: not allowed on this type"))
    if wrong:
        raise words.invalid(kind, metadata.name or metadata.generateName, wrong)
    return (metadata.namespace or "default") if kind.namespaced else "", metadata.name


def generate_name(new: Message, choose: random.Random) -> bool:
    """Name an object that only has generateName; False where there is nothing to do."""
    metadata = metadata_of(new)
    if metadata.name or not metadata.generateName:
        return False
    suffix = "".join(choose.choices(_SUFFIX_ALPHABET, k=_SUFFIX_LENGTH))
    metadata.name = metadata.generateName[:_GENERATED_PREFIX] + suffix
    return True


def prepare_create(new: Message, kind: Kind, *, uid: str, now: float) -> None:
    """Make a submitted object a new one: the client decides nothing of this, and nothing of the status."""
    metadata = metadata_of(new)
    if metadata.resourceVersion:
        raise Invalid("resourceVersion should not be set on objects to be created")
    namespace, _ = address(new, kind)
    _stamp_type(new, kind)
    if namespace:
        metadata.namespace = namespace
    metadata.uid = uid
    metadata.creationTimestamp.CopyFrom(stamp(now))
    metadata.ClearField("deletionTimestamp")
    metadata.ClearField("deletionGracePeriodSeconds")
    metadata.ClearField("generation")
    if has_field(new, "spec"):
        metadata.generation = 1
    if has_field(new, "status"):
        new.ClearField("status")


def prepare_update(new: Message, live: Message, kind: Kind) -> None:
    """Carry over to a submitted object what an update may not touch: identity, deletion and status."""
    metadata, kept = metadata_of(new), metadata_of(live)
    _stamp_type(new, kind)
    for name in ("name", "namespace", "uid", "generateName", "generation", "creationTimestamp"):
        _carry(metadata, kept, name)
    for name in ("deletionTimestamp", "deletionGracePeriodSeconds"):
        _carry(metadata, kept, name)
    if has_field(new, "status"):
        _carry(new, live, "status")
    added = sorted(set(metadata.finalizers) - set(kept.finalizers))
    if added and kept.HasField("deletionTimestamp"):
        reason = f"Forbidden: no new finalizers can be added if the object is being deleted, found {added}"
        raise words.invalid(kind, kept.name, [FieldError("metadata.finalizers", reason)])


def count_generation(new: Message, live: Message) -> None:
    """Count a change of the spec, however it came about: by the client or by admission."""
    if has_field(new, "spec") and new.spec != live.spec:  # type: ignore[attr-defined]
        metadata_of(new).generation = metadata_of(live).generation + 1


def with_status(live: Message, submitted: Message, kind: Kind) -> Any:
    """A copy of `live` with the submitted status. Invalid where the kind has none."""
    if not has_field(live, "status"):
        raise Invalid(f"{kind.plural} have no status")
    new = copy_of(live)
    _carry(new, submitted, "status")
    return new


def encode(obj: Message, kind: Kind) -> bytes:
    """The bytes that are stored: without resourceVersion, maps in a fixed order. TooLarge over the bound."""
    metadata = metadata_of(obj)
    metadata.ClearField("resourceVersion")
    data = obj.SerializeToString(deterministic=True)
    if len(data) > MAX_OBJECT:
        raise words.too_large(kind, metadata.name, len(data), MAX_OBJECT)
    return data


def copy_of(obj: Message) -> Any:
    """A private copy."""
    copy = type(obj)()
    copy.CopyFrom(obj)
    return copy


def revision_asked(obj: Message) -> int | None:
    """The resourceVersion that a submitted object insists on; None where it has none."""
    text = metadata_of(obj).resourceVersion
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Invalid(
            "cannot use resourceVersion: not one of this store",
            [FieldError("metadata.resourceVersion", f'Invalid value: "{text[:64]}"')],
        )
    return int(text)


def _stamp_type(new: Message, kind: Kind) -> None:
    new.apiVersion, new.kind = kind.api_version, kind.name  # type: ignore[attr-defined]


def _carry(new: Message, source: Message, name: str) -> None:
    """Make `new`'s field what `source` has, absence included."""
    if not source.HasField(name):
        new.ClearField(name)
    elif new.DESCRIPTOR.fields_by_name[name].message_type is None:
        setattr(new, name, getattr(source, name))
    else:
        getattr(new, name).CopyFrom(getattr(source, name))
