"""Requests and limits of containers. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.api.validation.problems import NOT_NEGATIVE, Problems
from podplane import names, quantity
from podplane.v1 import container_pb2

STANDARD = ("cpu", "memory", "ephemeral-storage")
_NODE_ONLY = ("pods", "storage")
_HUGE_PAGES = "hugepages-"


def resources(value: container_pb2.ResourceRequirements, path: str, found: Problems) -> None:
    """Quantities that exist and are not negative, requests not above limits."""
    for name, limit in sorted(value.limits.items()):
        _of_container(name, limit, f"{path}.limits[{name}]", found)
    for name, request in sorted(value.requests.items()):
        at = f"{path}.requests[{name}]"
        if _of_container(name, request, at, found):
            _against_limit(name, request, value.limits, at, found)


def quantities(values: Mapping[str, str], path: str, found: Problems) -> None:
    """A map of resources to quantities, as a node reports it."""
    for name, value in sorted(values.items()):
        _resource(name, value, f"{path}[{name}]", found)


def _of_container(name: str, value: str, path: str, found: Problems) -> bool:
    if name.startswith(_HUGE_PAGES):
        found.forbidden(path, "huge pages are not supported by this version")
        return False
    if name in _NODE_ONLY:
        found.invalid(path, name, "must be a standard resource for containers")
    return _resource(name, value, path, found)


def _resource(name: str, value: str, path: str, found: Problems) -> bool:
    for detail in names.qualified_name(name):
        found.invalid(path, name, detail)
    if "/" not in name and name not in STANDARD and not name.startswith(_HUGE_PAGES) and name not in _NODE_ONLY:
        found.invalid(path, name, "must be a standard resource for containers")
    try:
        amount = quantity.parse(value)
    except ValueError as error:
        found.invalid(path, value, str(error))
        return False
    if amount < 0:
        found.invalid(path, value, NOT_NEGATIVE)
    elif ("/" in name or name == "pods") and amount.denominator != 1:
        found.invalid(path, value, "must be an integer")
    return True


def _against_limit(name: str, request: str, limits: Mapping[str, str], path: str, found: Problems) -> None:
    limit = limits.get(name)
    if limit is None:
        if "/" in name:
            found.required(path, "Limit must be set for non overcommitable resources")
        return
    try:
        allowed = quantity.parse(limit)
    except ValueError:
        return  # told at the limit itself
    if "/" in name and quantity.parse(request) != allowed:
        found.invalid(path, request, f"must be equal to {name} limit of {limit}")
    elif quantity.parse(request) > allowed:
        found.invalid(path, request, f"must be less than or equal to {name} limit of {limit}")
