"""What apply remembers of the manifest, and how it makes the next object of it. Pure.

The manifest is kept where kubectl keeps it, in an annotation, so that people and tools find what they know.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from controlplane.objects import words
from controlplane.objects.metadata import copy_of, has_field, metadata_of
from podplane.errors import FieldError, Invalid
from podplane.kinds import Kind
from podplane.manifest import printing, reading
from podplane.merge import SERVER_OWNED, three_way

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def manifest_of(obj: Message, kind: Kind) -> Any:
    """The part of a submitted object that its author decides: a private copy."""
    manifest = copy_of(obj)
    metadata = metadata_of(manifest)
    if metadata.generateName and not metadata.name:
        raise Invalid("cannot use generate name with apply")
    manifest.apiVersion, manifest.kind = kind.api_version, kind.name
    for name in SERVER_OWNED:
        if name not in ("name", "namespace"):
            metadata.ClearField(name)  # type: ignore[arg-type]
    metadata.annotations.pop(LAST_APPLIED, None)
    if has_field(manifest, "status"):
        manifest.ClearField("status")
    return manifest


def first(manifest: Message, submitted: Message) -> Any:
    """The object that a manifest creates. A submitted resourceVersion stays: creating refuses it."""
    new = copy_of(manifest)
    _remember(new, manifest)
    metadata_of(new).resourceVersion = metadata_of(submitted).resourceVersion
    return new


def merged(live: Message, manifest: Message, kind: Kind) -> Any:
    """The live object with the manifest applied: three-way, over what was applied last."""
    new = three_way(_last_applied(live, kind), live, manifest)
    _remember(new, manifest)
    return new


def _remember(new: Message, manifest: Message) -> None:
    metadata_of(new).annotations[LAST_APPLIED] = printing.to_json(manifest, None) + "\n"


def _last_applied(live: Message, kind: Kind) -> Message | None:
    metadata = metadata_of(live)
    text = metadata.annotations.get(LAST_APPLIED)
    if not text:
        return None
    try:
        return reading.from_json(text, kind.message)
    except Invalid as error:
        path = f"metadata.annotations[{LAST_APPLIED}]"
        reason = f"cannot be read, remove the annotation to apply without it: {error}"
        raise words.invalid(kind, metadata.name, [FieldError(path, reason)]) from error
