"""The services of one size, and what becomes of them: values, the same in each run. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from nodeagent.proxy.mode import Ranges
from nodeagent.proxy.services import Endpoint, ServicePort

Services = Mapping[str, tuple[ServicePort, ...]]
"""By namespace/name; one that has not changed is the same value (see nodeagent/proxy/mode.py)."""

RANGES = Ranges("10.255.0.0/24", "10.128.0.0/9")
"""The pods of the measured node, and those of all."""
ENDPOINTS = "10.128.0.0/10"
"""Where all endpoints are."""
PORT = 8080
_FIRST_SERVICE, _FIRST_ENDPOINT, _FIRST_NEW = (
    int(IPv4Address(text)) for text in ("10.96.0.1", "10.128.0.1", "10.160.0.1")
)


@dataclass(frozen=True, slots=True)
class Size:
    """So many services of so many endpoints each."""

    services: int
    endpoints: int

    @property
    def total(self) -> int:
        return self.services * self.endpoints

    def __str__(self) -> str:
        return f"{self.services:,} x {self.endpoints}"


def parse(text: str) -> Size:
    """`10000x2`, or `10000` for two endpoints each. Raises ValueError."""
    services, _, endpoints = text.replace(",", "").partition("x")
    made = Size(int(services), int(endpoints or 2))
    if not (0 < made.services <= 100_000 and 0 < made.total <= 500_000):
        raise ValueError(f"{text} is not a size: services x endpoints, at most 100000 and 500000 together")
    return made


def build(size: Size) -> Services:
    """All services of a size."""
    made: dict[str, tuple[ServicePort, ...]] = {}
    for number in range(size.services):
        first = _FIRST_ENDPOINT + number * size.endpoints
        ends = tuple(Endpoint(str(IPv4Address(first + slot)), PORT) for slot in range(size.endpoints))
        key = f"default/service-{number:06}"
        address = str(IPv4Address(_FIRST_SERVICE + number))
        made[key] = (ServicePort(key, "http", "tcp", address, 80, 0, ends),)
    return made


class Rollout:
    """Changes as a rollout makes them: an endpoint more, one less, one in the place of another; of new pods always."""

    def __init__(self, services: Services) -> None:
        self.services = dict(services)
        self._next = _FIRST_NEW

    def step(self, kind: str, count: int = 1) -> list[str]:
        """Change so many services, spread over all; returns their keys. kind: more, less, other."""
        keys = list(self.services)
        chosen = keys[:: max(1, len(keys) // count)][:count]
        for key in chosen:
            [port] = self.services[key]
            kept = port.endpoints if kind == "more" else port.endpoints[1:]
            come = (self._endpoint(),) if kind != "less" else ()
            self.services[key] = (port._replace(endpoints=tuple(sorted((*kept, *come)))),)
        return chosen

    def _endpoint(self) -> Endpoint:
        self._next += 1
        return Endpoint(str(IPv4Address(self._next)), PORT)


def sample(services: Services, count: int) -> Iterator[ServicePort]:
    """Ports of services, spread over all of them, the first and the last too."""
    ports = [port for found in services.values() for port in found]
    steps = max(1, count - 1)
    for index in range(min(count, len(ports))):
        yield ports[index * (len(ports) - 1) // steps]
