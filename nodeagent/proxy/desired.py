"""From services and endpoint slices to what every mode is asked for. Pure.

Owns the memory of what each service was made of, so that one that has not changed is the same value again: modes
compare by identity. Cannot fail: a service that nothing can be made of is named, and keeps what it has.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from nodeagent.proxy.mode import Ranges, Wanted
from nodeagent.proxy.services import (
    HealthCheck,
    HostPort,
    ServicePort,
    Unprogrammable,
    health_check,
    key_of,
    ports_of,
    slices_by_service,
)
from podplane.v1 import endpointslice_pb2, service_pb2


@dataclass(frozen=True, slots=True)
class Asked:
    """All services and slices of the cluster as of revision; never changed afterwards."""

    services: Sequence[service_pb2.Service]
    slices: Sequence[endpointslice_pb2.EndpointSlice]
    node_name: str
    revision: int


@dataclass(frozen=True, slots=True)
class _Made:
    source: tuple[object, ...]
    ports: tuple[ServicePort, ...]
    check: HealthCheck | None
    problem: str

    def is_of(self, source: tuple[object, ...]) -> bool:
        return len(source) == len(self.source) and all(map(operator.is_, source, self.source))


@dataclass(frozen=True, slots=True)
class Desired:
    """wanted: for the mode. errors: what is wrong with single services."""

    wanted: Wanted
    errors: dict[str, str] = field(default_factory=dict)
    checks: tuple[HealthCheck, ...] = ()


class Desires:
    """Makes one Desired after the other, each from all that was asked for."""

    def __init__(self) -> None:
        self._made: dict[str, _Made] = {}

    def of(self, asked: Asked, ranges: Ranges, host_ports: Iterable[HostPort] = ()) -> Desired:
        slices = slices_by_service(asked.slices)
        made: dict[str, _Made] = {}
        for service in asked.services:
            key = key_of(service)
            made[key] = self._make(key, service, slices.get(key, ()), asked.node_name)
        self._made = made
        # In one order always: rules that only change places are written anew.
        keys = sorted(made)
        services = {key: made[key].ports for key in keys if not made[key].problem}
        errors = {key: made[key].problem for key in keys if made[key].problem}
        checks = tuple(sorted(item.check for item in made.values() if item.check))
        wanted = Wanted(ranges, services, frozenset(errors), tuple(sorted(host_ports)))
        return Desired(wanted, errors, checks)

    def _make(
        self,
        key: str,
        service: service_pb2.Service,
        slices: tuple[endpointslice_pb2.EndpointSlice, ...],
        node_name: str,
    ) -> _Made:
        source = (node_name, service, *slices)
        old = self._made.get(key)
        if old is not None and old.is_of(source):
            return old
        try:
            check = health_check(service, slices, node_name)
            ports = ports_of(service, slices, node_name)
        except Unprogrammable as error:
            return _Made(source, (), None, str(error))
        return _Made(source, old.ports if old is not None and old.ports == ports else ports, check, "")
