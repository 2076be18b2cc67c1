"""Which service is asked for at which address and port, where several want the same one. Pure.

Owns who has which place. The control plane gives no cluster address and no node port twice, but a load balancer's
address is whatever its controller says. The oldest service that wants a place has it, on every node alike, whatever a
node has seen before; but a cluster address is its service's, however old another one is. Who lacks a place goes
without it, and has it once it is free. Cannot fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from nodeagent.proxy.services import ServicePort

Ports = tuple[ServicePort, ...]
Place = tuple[str, str, int]
"""Address ("": any of the node), protocol, port."""


class Claims:
    """Of all services, by namespace/name."""

    def __init__(self) -> None:
        self._own: dict[Place, tuple[str, ...]] = {}
        """Who wants it, the oldest first."""
        self._balanced: dict[Place, tuple[str, ...]] = {}
        self._lacking: frozenset[str] = frozenset()

    def settle(
        self, before: Mapping[str, Ports], wanted: Callable[[str], Ports], age: Callable[[str], tuple[int, str]]
    ) -> set[str]:
        """Settle who has what; returns whose grants may be others now.

        before: what those that have changed wanted until now. wanted: what one wants now. age: less is older; of one
        service it may have changed only with what it wants.
        """
        touched: set[Place] = set()
        for key, ports in before.items():
            for claims, places in ((self._own, _own(ports)), (self._balanced, _balanced(ports))) if ports else ():
                for place in places:
                    touched.add(place)
                    claims[place] = tuple(other for other in claims.get(place, ()) if other != key)
        for key in before:
            ports = wanted(key)
            for claims, places in ((self._own, _own(ports)), (self._balanced, _balanced(ports))):
                for place in places:
                    touched.add(place)
                    claimants = claims.get(place)
                    claims[place] = tuple(sorted({*claimants, key}, key=age)) if claimants else (key,)
        affected, rivals = {*before, *self._lacking}, {*self._lacking}
        for place in touched:
            claimants = (*self._own.get(place, ()), *self._balanced.get(place, ()))
            affected.update(claimants)
            if len(claimants) > 1:
                rivals.update(claimants)
            for claims in (self._own, self._balanced):
                if place in claims and not claims[place]:
                    del claims[place]
        self._lacking = frozenset(
            key for key in rivals if any(self._holder(place) != key for place in _places(wanted(key)))
        )
        return affected

    def _holder(self, place: Place) -> str:
        claimants = self._own.get(place) or self._balanced.get(place)
        return claimants[0] if claimants else ""

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
    return port._replace(
        node_port=0 if ("", port.protocol, port.node_port) in taken else port.node_port,
        load_balancer_ips=tuple(item for item in port.load_balancer_ips if _at(port, item) not in taken),
    )


def _spelled(place: Place) -> str:
    address, protocol, port = place
    return f"{address}:{port}/{protocol.upper()}" if address else f"node port {port}/{protocol.upper()}"
