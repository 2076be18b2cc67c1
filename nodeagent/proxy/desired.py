"""From services and endpoint slices to what every mode is asked for. Pure.

Owns the memory of what each service was made of, so that one that has not changed is the same value again: modes
compare by identity. Cannot fail: a service that nothing can be made of is named, and keeps what it has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from nodeagent.proxy.claims import Claims
from nodeagent.proxy.mode import Ranges, Step, Wanted
from nodeagent.proxy.services import (
    HealthCheck,
    HostPort,
    ServicePort,
    Unprogrammable,
    health_check,
    key_of,
    owner_of,
    ports_of,
)
from podplane.v1.endpointslice_pb2 import EndpointSlice
from podplane.v1.service_pb2 import Service

T = TypeVar("T")


Key = tuple[str, str]
"""(namespace, name)"""
SERVICE, SLICE = "service", "endpointSlice"
Touched = Collection[tuple[str, Key]]
"""SERVICE or SLICE, and which one."""


@dataclass(frozen=True, slots=True)
class Asked:
    """All services and slices of the cluster as of revision; never changed afterwards."""

    services: Mapping[Key, Service]
    slices: Mapping[Key, EndpointSlice]
    node_name: str
    revision: int
    touched: Touched | None = None
    """What may be other than what was asked before; None: all of it."""

    def after(self, other: Asked) -> Asked:
        """The same, where what was asked before, other, was not heeded."""
        if self.touched is None or other.touched is None:
            return replace(self, touched=None)
        return replace(self, touched=tuple(dict.fromkeys((*other.touched, *self.touched))))


@dataclass(frozen=True, slots=True)
class _Made:
    """ports: where there is a problem, the last that could be made."""

    ports: tuple[ServicePort, ...]
    check: HealthCheck | None
    problem: str


@dataclass(frozen=True, slots=True)
class Desired:
    """wanted: for the mode. errors: why single services keep what they have; lacking: what others go without."""

    wanted: Wanted
    errors: dict[str, str] = field(default_factory=dict)
    lacking: dict[str, str] = field(default_factory=dict)
    checks: tuple[HealthCheck, ...] = ()


class Desires:
    """Makes one Desired after the other, each from all that was asked for.

    An object is one that has not changed if it is the very same. Where it is known what may have changed, that alone is
    looked at: of 44,125 services one change takes 1.5 ms, most of it to copy the mapping of them, and else 15.
    """

    def __init__(self) -> None:
        self._node_name = ""
        self._seen_services: Mapping[Key, Service] = {}
        self._seen_slices: Mapping[Key, EndpointSlice] = {}
        self._services: dict[str, Service] = {}
        self._slices: dict[str, dict[Key, EndpointSlice]] = {}
        self._made: dict[str, _Made] = {}
        self._ports: dict[str, tuple[ServicePort, ...]] = {}
        self._claims = Claims()
        self._errors: dict[str, str] = {}
        self._lacking: dict[str, str] = {}
        self._checks: dict[str, HealthCheck] = {}

    def of(self, asked: Asked, ranges: Ranges, host_ports: Iterable[HostPort] = ()) -> Desired:
        touched = self._take(asked)
        ports = dict(self._ports)  # the one that was handed out stays as it is
        before = {key: self._wish(key) for key in touched}
        for key in touched:
            self._make(key)
        affected = dict.fromkeys([*touched, *self._claims.settle(before, self._wish, self._age)])
        changed = [key for key in affected if self._put(key, ports)]
        step = Step(self._ports, changed)
        if any(key in ports and key not in self._ports for key in changed):
            # In one order always: rules that only change places are written anew.
            ports = {key: ports[key] for key in sorted(ports)}
        self._ports = ports
        wanted = Wanted(ranges, ports, frozenset(self._errors), tuple(sorted(host_ports)), step)
        checks = tuple(sorted(self._checks.values()))
        return Desired(wanted, dict(sorted(self._errors.items())), dict(sorted(self._lacking.items())), checks)

    def granted(self, key: str, ports: tuple[ServicePort, ...]) -> tuple[ServicePort, ...]:
        """What a service gets of these ports, by what was settled last. Raises Unprogrammable."""
        granted, words = self._claims.granted(key, ports)
        if granted is None:
            raise Unprogrammable(words)
        return granted

    def _wish(self, key: str) -> tuple[ServicePort, ...]:
        made = self._made.get(key)
        return made.ports if made else ()

    def _age(self, key: str) -> tuple[int, str]:
        service = self._services.get(key)
        return service.metadata.creationTimestamp.ToNanoseconds() if service else 0, key

    def _put(self, key: str, ports: dict[str, tuple[ServicePort, ...]]) -> bool:
        """Note what is to be had of a service, in ports and elsewhere; returns whether a mode has to know of it."""
        had, was_kept = ports.get(key), key in self._errors
        made = self._made.get(key)
        granted, words = self._claims.granted(key, made.ports) if made else (None, "")
        problem = "" if made is None else made.problem or (words if granted is None else "")
        if granted is None or problem:
            ports.pop(key, None)
        elif ports.get(key) != granted or not words:
            ports[key] = granted
        _keep(self._errors, key, problem or None)
        _keep(self._lacking, key, words if words and not problem else None)
        _keep(self._checks, key, made.check if made else None)
        return ports.get(key) is not had or was_kept or bool(problem)

    def _take(self, asked: Asked) -> dict[str, None]:
        """Take note of what has come and gone; returns whose ports may be others now, in the order that they came in.

        What came together lies together in memory: in another order 10,000 take a third longer.
        """
        touched: dict[str, None] = {}
        for _, old, new in _exchanged(self._seen_services, asked.services, _among(asked.touched, SERVICE)):
            if old is not None:
                touched[key := key_of(old)] = None
                self._services.pop(key, None)
            if new is not None:
                touched[key := key_of(new)] = None
                self._services[key] = new
        for name, had, has in _exchanged(self._seen_slices, asked.slices, _among(asked.touched, SLICE)):
            if had is not None:
                touched[owner := owner_of(had)] = None
                self._slices[owner].pop(name)
            if has is not None:
                touched[owner := owner_of(has)] = None
                self._slices.setdefault(owner, {})[name] = has
        if asked.node_name != self._node_name:
            touched |= dict.fromkeys(self._services)
        self._seen_services, self._seen_slices, self._node_name = asked.services, asked.slices, asked.node_name
        return touched

    def _make(self, key: str) -> None:
        service, slices = self._services.get(key), tuple(self._slices.get(key, {}).values())
        if not slices:
            self._slices.pop(key, None)
        if service is None:
            self._made.pop(key, None)
            return
        old, check = self._made.get(key), health_check(service, slices, self._node_name)
        try:
            ports = ports_of(service, slices, self._node_name)
            self._made[key] = _Made(old.ports if old is not None and old.ports == ports else ports, check, "")
        except Unprogrammable as error:
            self._made[key] = _Made(self._wish(key), check, str(error))


def _among(touched: Touched | None, kind: str) -> Iterable[Key] | None:
    return None if touched is None else [key for each, key in touched if each == kind]


def _exchanged(
    old: Mapping[Key, T], new: Mapping[Key, T], among: Iterable[Key] | None
) -> list[tuple[Key, T | None, T | None]]:
    """What was and what is in its place, where that is another; among: of these, None: of all."""
    if among is None:
        among = [key for key in old if key not in new] + [key for key, item in new.items() if old.get(key) is not item]
    return [(key, was, now) for key in among if (was := old.get(key)) is not (now := new.get(key))]


def _keep(values: dict[str, T], key: str, value: T | None) -> None:
    """None: the key has no value."""
    if value is None:
        values.pop(key, None)
    else:
        values[key] = value
