"""Elements of nftables' maps and sets as values, in nft's own words, and the containers that they are in. Pure.

Owns nothing. messages.py makes netlink's messages of them; the words that make tables, chains and containers are a
mode's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Key = tuple[str, str]
"""Container and key."""
Value = tuple[str, str]
"""What the key leads to ("" in a set), and the comment."""
_TYPES = {"ip": "ipv4_addr", "proto": "inet_proto", "port": "inet_service"}
_TARGETS = {"verdict": " : verdict", "target": " : ipv4_addr . inet_service", "": ""}


@dataclass(frozen=True, slots=True)
class Container:
    """A map or set. key: its fields (ip, proto, port, slot); value: verdict, target (ip . port) or nothing (a set)."""

    name: str
    key: tuple[str, ...]
    value: str
    declaration: str

    @property
    def kind(self) -> str:
        return "map" if self.value else "set"


def container(name: str, key: str, value: str = "") -> Container:
    """key: its fields, without slots, which have no type of a name."""
    fields = tuple(key.split())
    return Container(name, fields, value, f"type {' . '.join(map(_TYPES.__getitem__, fields))}{_TARGETS[value]};")


def backends(name: str, protocol: str, *, addressed: bool) -> Container:
    """A map of where a port is asked for, and a random slot → the endpoint. addressed: at an address, not any."""
    # Only an expression has a random number's type; nft 1.0.6 wants the protocol of a port that it knows by expression.
    asked = f"{protocol} dport . numgen random mod 65536"
    key = ("ip", "port", "slot") if addressed else ("port", "slot")
    declaration = f"typeof {f'ip daddr . {asked}' if addressed else asked} : ip daddr . {protocol} dport;"
    return Container(name, key, "target", declaration)


@dataclass(slots=True)
class Changes:
    """Elements to delete and to add, each with the service that it is for, "" where that is not known."""

    gone: list[tuple[str, Key]] = field(default_factory=list)
    added: list[tuple[str, Key, Value]] = field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.gone) + len(self.added)


def spelled(key: str, value: Value, *, is_map: bool) -> str:
    """An element that comes, as nft has it in a list of elements."""
    leads_to, comment = value
    named = f'{key} comment "{comment}"' if comment else key
    return f"{named} : {leads_to}" if is_map else named
