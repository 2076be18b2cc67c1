"""From services and endpoint slices to what every mode is asked for. Pure.

Owns the memory of what each service was made of, so that one that has not changed is the same value again: modes
compare by identity. Cannot fail: a service that nothing can be made of is named, and keeps what it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class Asked:
    """All services and slices of the cluster as of revision; never changed afterwards."""

    services: Sequence[Service]
    slices: Sequence[EndpointSlice]
    node_name: str
    revision: int


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

    An object is one that has not changed if it is the very same: of 10,000 services and slices, one change takes 4 ms.
    """

    def __init__(self) -> None:
        self._node_name = ""
        self._seen_services: Mapping[int, Service] = {}
        self._seen_slices: Mapping[int, EndpointSlice] = {}
        self._services: dict[str, Service] = {}
        self._slices: dict[str, dict[int, EndpointSlice]] = {}
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
        services = dict(zip(map(id, asked.services), asked.services, strict=True))
        slices = dict(zip(map(id, asked.slices), asked.slices, strict=True))
        touched: dict[str, None] = {}
        for item in _missing(self._seen_services, services):
            touched[key := key_of(item)] = None
            self._services.pop(key, None)
        for item in _missing(services, self._seen_services):
            touched[key := key_of(item)] = None
            self._services[key] = item
        for part in _missing(self._seen_slices, slices):
            touched[owner := owner_of(part)] = None
            self._slices[owner].pop(id(part))
        for part in _missing(slices, self._seen_slices):
            touched[owner := owner_of(part)] = None
            self._slices.setdefault(owner, {})[id(part)] = part
        if asked.node_name != self._node_name:
            touched |= dict.fromkeys(self._services)
        self._seen_services, self._seen_slices, self._node_name = services, slices, asked.node_name
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


def _missing(old: Mapping[int, T], new: Mapping[int, T]) -> list[T]:
    """Those of old that are not in new."""
    return [item for identity, item in old.items() if identity not in new]


def _keep(values: dict[str, T], key: str, value: T | None) -> None:
    """None: the key has no value."""
    if value is None:
        values.pop(key, None)
    else:
        values[key] = value
