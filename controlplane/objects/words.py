"""What a caller is told: the errors of object writes in Kubernetes' words. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from podplane.errors import AlreadyExists, Conflict, FieldError, Forbidden, Invalid, NotFound, TooLarge
from podplane.kinds import NAMESPACE, Kind


def not_found(kind: Kind, name: str) -> NotFound:
    return NotFound(f"{kind.qualified(name)} not found")


def already_exists(kind: Kind, name: str) -> AlreadyExists:
    return AlreadyExists(f"{kind.qualified(name)} already exists")


def modified(kind: Kind, name: str) -> Conflict:
    return Conflict(
        f"Operation cannot be fulfilled on {kind.qualified(name)}: the object has been modified; "
        "please apply your changes to the latest version and try again"
    )


def uid_differs(kind: Kind, name: str, wanted: str, found: str) -> Conflict:
    return Conflict(
        f"Operation cannot be fulfilled on {kind.qualified(name)}: Precondition failed: "
        f"UID in precondition: {wanted}, UID in object meta: {found}"
    )


def cannot(kind: Kind, name: str, reason: str) -> Conflict:
    """A write that the object's state rules out."""
    return Conflict(f"Operation cannot be fulfilled on {kind.qualified(name)}: {reason}")


def no_namespace(namespace: str) -> NotFound:
    return NotFound(f"{NAMESPACE.qualified(namespace)} not found: create it first: podctl create namespace {namespace}")


def namespace_ends(kind: Kind, name: str, namespace: str) -> Forbidden:
    return forbidden(
        kind, name, f"unable to create new content in namespace {namespace} because it is being terminated"
    )


def forbidden(kind: Kind, name: str, reason: str) -> Forbidden:
    return Forbidden(f"{kind.qualified(name)} is forbidden: {reason}")


def invalid(kind: Kind, name: str, fields: Sequence[FieldError]) -> Invalid:
    """Every field that is wrong: `Pod "web" is invalid: spec.containers: Required value`."""
    group = f".{kind.group}" if kind.group else ""
    return Invalid(f'{kind.name}{group} "{name}" is invalid', fields)


def too_large(kind: Kind, name: str, size: int, bound: int) -> TooLarge:
    return TooLarge(f"{kind.qualified(name)} is too large: {size} bytes, at most {bound}")
