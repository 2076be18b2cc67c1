"""Which service is asked for at which address and port, where several want the same one. Pure.

Owns who holds which place. The control plane gives no cluster address and no node port twice, but a load balancer's
address is whatever its controller says. The first service that asks for a place holds it until it lets go, of several
that ask at once the oldest; a cluster address is its service's, whoever else has asked for it. Who lacks a place goes
without it, and has it once it is free. Cannot fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from nodeagent.proxy.services import ServicePort

Ports = tuple[ServicePort, ...]
Place = tuple[str, str, int]
"""Address ("": any of the node), protocol, port."""


class Claims:
    """Of all services, by namespace/name."""

    def __init__(self) -> None:
        self._own: dict[Place, str] = {}
        self._balanced: dict[Place, str] = {}
        self._lacking: tuple[str, ...] = ()

    def settle(self, before: Mapping[str, Ports], wanted: Callable[[str], Ports]) -> set[str]:
        """Settle who has what; returns whose grants may be others now.

        before: what those that have changed wanted until now, the oldest service first. wanted: what one wants now.
        """
        for key, ports in before.items():
            if ports:
                self._let_go(key, {*_places(ports)} - {*_places(wanted(key))})
        asking = dict.fromkeys([*self._lacking, *before])
        for key in tuple(asking):
            for place in _own(wanted(key)):
                self._own.setdefault(place, key)
                if displaced := self._balanced.pop(place, ""):
                    asking[displaced] = None
        for key in asking:
            for place in _balanced(wanted(key)):
                if place not in self._own:
                    self._balanced.setdefault(place, key)
        self._lacking = tuple(key for key in asking if any(self._holder(it) != key for it in _places(wanted(key))))
        return set(asking)

    def _let_go(self, key: str, places: set[Place]) -> None:
        for place in places:
            for held in (self._own, self._balanced):
                if held.get(place) == key:
                    del held[place]

    def _holder(self, place: Place) -> str:
        return self._own.get(place) or self._balanced.get(place, "")

    def granted(self, key: str, ports: Ports) -> tuple[Ports | None, str]:
        """What a service gets of these ports (the same value where it is all), and what is said of what it does not.

        None: not even its cluster address.
        """
        if key not in self._lacking:
            return ports, ""
        taken = {place: holder for place in _places(ports) if (holder := self._holder(place)) not in (key, "")}
        if not taken:
            return ports, ""
        place, holder = next(iter(taken.items()))
        words = f"{_spelled(place)} is already that of {holder}"
        if len(taken) > 1:
            words = f"{words}, and {len(taken) - 1} more places are taken"
        if any(_at(port, port.cluster_ip) in taken for port in ports):
            return None, words
        return tuple(_without(port, taken) for port in ports), words


def _at(port: ServicePort, address: str) -> Place:
    return address, port.protocol, port.port


def _own(ports: Ports) -> Iterator[Place]:
    for port in ports:
        yield _at(port, port.cluster_ip)
        if port.node_port:
            yield "", port.protocol, port.node_port


def _balanced(ports: Ports) -> Iterator[Place]:
    return (_at(port, address) for port in ports for address in port.load_balancer_ips)


def _places(ports: Ports) -> Iterator[Place]:
    yield from _own(ports)
    yield from _balanced(ports)


def _without(port: ServicePort, taken: Mapping[Place, str]) -> ServicePort:
    return replace(
        port,
        node_port=0 if ("", port.protocol, port.node_port) in taken else port.node_port,
        load_balancer_ips=tuple(item for item in port.load_balancer_ips if _at(port, item) not in taken),
    )


def _spelled(place: Place) -> str:
    address, protocol, port = place
    return f"{address}:{port}/{protocol.upper()}" if address else f"node port {port}/{protocol.upper()}"
