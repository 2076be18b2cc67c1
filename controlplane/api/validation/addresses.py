"""Addresses: those that are one, and those that traffic may be led to. Pure."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from controlplane.api.validation.problems import Problems

_LONGEST = 64
"""Characters. No address is longer, and longer ones would fill the memory."""


def is_address(value: str) -> bool:
    """Of either family."""
    return bool(_family(value))


def address(value: str, path: str, found: Problems) -> None:
    """Of either family."""
    if not is_address(value):
        found.invalid(path, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")


def ipv4(value: str, path: str, found: Problems) -> None:
    """In dotted decimals."""
    if _family(value) != "IPv4":
        found.invalid(path, value, "must be a valid IPv4 address, (e.g. 10.9.8.7)")


def usable(value: str, path: str, found: Problems, family: str = "") -> None:
    """Only addresses of pods and machines: none may lead into a node's own loopback or metadata service.

    `family` is IPv4 or IPv6; either where it is empty.
    """
    its = _family(value)
    if not its:
        found.invalid(path, value, f"must be a valid {family or 'IP'} address")
    elif family and its != family:
        found.invalid(path, value, f"must be an {family} address")
    elif _is_special(value):
        found.invalid(path, value, "may not be unspecified, loopback, link-local or multicast")


def _family(value: str) -> str:
    """Empty where it is no address."""
    return _parsed(value)[0] if len(value) <= _LONGEST else ""


def _is_special(value: str) -> bool:
    return _parsed(value)[1]


@lru_cache(maxsize=4096)
def _parsed(value: str) -> tuple[str, bool]:
    try:
        found = ipaddress.ip_address(value)
    except ValueError:
        return "", False
    special = found.is_unspecified or found.is_loopback or found.is_link_local or found.is_multicast
    return f"IPv{found.version}", special
