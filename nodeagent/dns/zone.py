"""The names of a cluster: what services and endpoint slices make of them, and the answer to each question. Pure.

    <service>.<namespace>.svc.<domain>                     A: the cluster IP; headless: each ready endpoint; or CNAME
    <hostname or a-b-c-d>.<service>.<namespace>.svc.…      A: the endpoints of that name
    _<port>._<protocol>.<service>.<namespace>.svc.…        SRV; without port and protocol: of all ports
    a-b-c-d.<namespace>.pod.<domain>                       A: that address, if it is one of the pods' range
    d.c.b.a.in-addr.arpa                                   PTR

Keeps indexes by service and by address, so that a change and an answer cost what they are about. Cannot fail. Source:
kubernetes/dns docs/specification.md 1.1.0; where it is silent CoreDNS's kubernetes plugin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from nodeagent.ipv4 import number
from nodeagent.proxy.services import SERVICE_NAME
from podplane.v1.endpointslice_pb2 import Endpoint, EndpointPort, EndpointSlice
from podplane.v1.service_pb2 import Service, ServicePort

VERSION = "1.1.0"
"""Of the specification."""
REVERSE = ("in-addr", "arpa")

Key = tuple[str, str]
"""(namespace, name)"""
Labels = tuple[str, ...]
Port = tuple[str, str]
"""Name and protocol, in lower case."""


@dataclass(frozen=True, slots=True)
class Record:
    """name: with all labels, no dot at the end. data: as the type has it; an address, or a name, is text."""

    name: str
    kind: str
    data: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What there is under a name. Without records: it exists and has none of this type, or (exists False) does not.

    extra: the addresses of the names that the records lead to.
    """

    records: tuple[Record, ...] = ()
    extra: tuple[Record, ...] = ()
    exists: bool = True


NO_DATA, NO_NAME = Answer(), Answer(exists=False)


@dataclass(frozen=True, slots=True)
class Ranges:
    """Whose reverse names are the cluster's own."""

    pods: IPv4Network
    services: IPv4Network | None = None


class _Ends:
    """The slices by the addresses of their endpoints."""

    def __init__(self, slices: Mapping[Key, EndpointSlice]) -> None:
        self._slices: dict[int, tuple[Key, ...]] = {}
        for key, item in slices.items():
            self.add(key, item)

    def add(self, key: Key, item: EndpointSlice) -> None:
        for address in _addresses(item):
            self._slices[address] = (*self._slices.get(address, ()), key)

    def remove(self, key: Key, item: EndpointSlice) -> None:
        for address in _addresses(item):
            left = tuple(other for other in self._slices.pop(address, ()) if other != key)
            if left:
                self._slices[address] = left

    def at(self, address: int) -> tuple[Key, ...]:
        return self._slices.get(address, ())


class Zone:
    """The names below one domain, which is given in lower case; so are the labels of every question."""

    def __init__(self, domain: str, server: str = "", ranges: Ranges | None = None) -> None:
        """server: the address of the DNS server that answers."""
        self.domain = domain
        self.server = server
        self.ranges = ranges
        self.serial = 0
        """Changes so far."""
        self._suffix = tuple(domain.split("."))
        self._services: dict[Key, Service] = {}
        self._namespaces: Counter[str] = Counter()
        self._slices: dict[Key, EndpointSlice] = {}
        self._slices_of: dict[Key, dict[Key, EndpointSlice]] = {}
        self._portals: dict[int, Key] = {}
        self._ends: _Ends | None = None
        """From the first reverse question on: few ask one."""

    # ── what is known ────────────────────────────────────────────────────────────────────────────────────────

    def put_service(self, service: Service) -> None:
        """Take a service in, new or changed. It must not be changed afterwards."""
        key = _key(service)
        self.remove_service(key)
        self._services[key] = service
        self._namespaces[key[0]] += 1
        if (portal := number(service.spec.clusterIP)) is not None:
            self._portals[portal] = key

    def remove_service(self, key: Key) -> None:
        """Forget a service; nothing to do where it is not known."""
        self.serial += 1
        old = self._services.pop(key, None)
        if old is None:
            return
        self._namespaces[key[0]] -= 1
        if not self._namespaces[key[0]]:
            del self._namespaces[key[0]]
        portal = number(old.spec.clusterIP)
        if portal is not None and self._portals.get(portal) == key:
            del self._portals[portal]

    def put_slice(self, item: EndpointSlice) -> None:
        """Take an endpoint slice in, new or changed. It must not be changed afterwards."""
        key = _key(item)
        self.remove_slice(key)
        owner = item.metadata.labels.get(SERVICE_NAME)
        if not owner or item.addressType not in ("", "IPv4"):
            return
        self._slices[key] = item
        self._slices_of.setdefault((key[0], owner), {})[key] = item
        if self._ends is not None:
            self._ends.add(key, item)

    def remove_slice(self, key: Key) -> None:
        """Forget a slice; nothing to do where it is not known."""
        self.serial += 1
        old = self._slices.pop(key, None)
        if old is None:
            return
        owner = (key[0], old.metadata.labels[SERVICE_NAME])
        del self._slices_of[owner][key]
        if not self._slices_of[owner]:
            del self._slices_of[owner]
        if self._ends is not None:
            self._ends.remove(key, old)

    # ── what is asked ────────────────────────────────────────────────────────────────────────────────────────

    def answer(self, labels: Labels, kind: str) -> Answer | None:
        """The answer to a question for records of a kind; None where the name is not the cluster's."""
        if labels[-2:] == REVERSE:
            found = self._reverse(labels[:-2])
            return found and _of_kind(found, kind)
        if labels[-len(self._suffix) :] != self._suffix:
            return None
        return _of_kind(self._named(labels[: -len(self._suffix)], kind), kind)

    def _named(self, rest: Labels, kind: str) -> Answer:
        """The records below the domain that have this name; of some kinds only where they are asked for."""
        match rest:
            case ():
                return self._apex()
            case ("dns-version",):
                return Answer((Record(f"dns-version.{self.domain}", "TXT", (VERSION,)),))
            case ("ns", "dns"):
                return Answer(tuple(self._server()))
            case ("dns",) | ("svc",) | ("pod",):
                return NO_DATA
            case (namespace, "svc") | (namespace, "pod"):
                return NO_DATA if namespace in self._namespaces else NO_NAME
            case (dashed, namespace, "pod"):
                return self._pod(dashed, namespace)
            case (*below, service, namespace, "svc"):
                found = self._services.get((namespace, service))
                return NO_NAME if found is None else self._service(found, tuple(below), kind)
        return NO_NAME

    def _apex(self) -> Answer:
        return Answer((Record(self.domain, "NS", (f"ns.dns.{self.domain}",)),), tuple(self._server()))

    def _server(self) -> Iterator[Record]:
        if self.server:
            yield Record(f"ns.dns.{self.domain}", "A", (self.server,))

    def _pod(self, dashed: str, namespace: str) -> Answer:
        address = number(dashed.replace("-", "."))
        if address is None or self.ranges is None or IPv4Address(address) not in self.ranges.pods:
            return NO_NAME
        name = f"{dashed}.{namespace}.pod.{self.domain}"
        return Answer((Record(name, "A", (str(IPv4Address(address)),)),))

    def _service(self, service: Service, below: Labels, kind: str) -> Answer:
        name = self._name_of(service)
        if service.spec.type == "ExternalName":
            target = service.spec.externalName.rstrip(".")
            return NO_NAME if below else Answer((Record(name, "CNAME", (target,)),))
        # Clients that look for peers (Hazelcast, JGroups) ask for all ports so.
        if kind == "SRV" and len(below) < 2:
            every = self._ports(service, ".".join((*below, name)), None, *below)
            if every.records:
                return every
        match below:
            case ():
                return self._portal(service, name)
            case (port, protocol) if port[:1] == protocol[:1] == "_":
                return self._ports(service, f"{port}.{protocol}.{name}", (port[1:], protocol[1:]))
            case (protocol,) if protocol.startswith("_"):
                used = {f"_{port.protocol.lower() or 'tcp'}" for port in service.spec.ports if port.name}
                return NO_DATA if protocol in used else NO_NAME
            case (hostname,):
                ends = [end for end, _ in self._endpoints(service) if _hostname(end) == hostname]
                return _found(Record(f"{hostname}.{name}", "A", (end.addresses[0],)) for end in ends)
        return NO_NAME

    def _portal(self, service: Service, name: str) -> Answer:
        if is_headless(service):
            return _found(Record(name, "A", (end.addresses[0],)) for end, _ in self._endpoints(service))
        if number(service.spec.clusterIP) is None:
            return NO_NAME
        return Answer((Record(name, "A", (service.spec.clusterIP,)),))

    def _ports(self, service: Service, owner: str, port: Port | None, host: str = "") -> Answer:
        """SRV of one port, or (None) of all; host: those of the endpoints of that name."""
        name = self._name_of(service)
        if not host and not is_headless(service):
            numbers = _numbers(service.spec.ports, port)
            records = [Record(owner, "SRV", (0, 100, number, name)) for number in numbers]
            return Answer(tuple(records), self._portal(service, name).records) if records else NO_NAME
        srv: dict[Record, None] = {}
        extra: dict[Record, None] = {}
        for end, item in self._endpoints(service):
            if host in ("", hostname := _hostname(end)):
                target = f"{hostname}.{name}"
                for number in _numbers(item.ports, port):
                    srv[Record(owner, "SRV", (0, 100, number, target))] = None
                    extra[Record(target, "A", (end.addresses[0],))] = None
        return Answer(tuple(srv), tuple(extra)) if srv else NO_NAME

    def _endpoints(self, service: Service) -> Iterator[tuple[Endpoint, EndpointSlice]]:
        """The endpoints that are ready, or all where the service publishes them; each with its slice."""
        every = service.spec.publishNotReadyAddresses
        for item in self._slices_of.get((service.metadata.namespace, service.metadata.name), {}).values():
            for end in item.endpoints:
                ready = not end.conditions.HasField("ready") or end.conditions.ready
                if (ready or every) and end.addresses:
                    yield end, item

    def _reverse(self, labels: Labels) -> Answer | None:
        """PTR of an address of a service or an endpoint; None where others may know it."""
        address = number(".".join(reversed(labels))) if len(labels) == 4 else None
        if address is None:
            return None
        owner = ".".join((*labels, *REVERSE))
        names = dict.fromkeys(self._names_at(address))
        if names:
            return Answer(tuple(Record(owner, "PTR", (name,)) for name in names))
        return NO_NAME if self._holds(IPv4Address(address)) else None

    def _names_at(self, address: int) -> Iterator[str]:
        if (key := self._portals.get(address)) is not None:
            yield self._name_of(self._services[key])
            return
        if self._ends is None:
            self._ends = _Ends(self._slices)
        owners = {(key[0], self._slices[key].metadata.labels[SERVICE_NAME]) for key in self._ends.at(address)}
        services = [self._services[owner] for owner in sorted(owners) if owner in self._services]
        text = str(IPv4Address(address))
        # The specification gives names to endpoints of headless services; others have them where there are none.
        for service in [each for each in services if is_headless(each)] or services:
            for end, _ in self._endpoints(service):
                if end.addresses[0] == text:
                    yield f"{_hostname(end)}.{self._name_of(service)}"

    def _holds(self, address: IPv4Address) -> bool:
        ranges = self.ranges
        if ranges is None:
            return False
        return address in ranges.pods or (ranges.services is not None and address in ranges.services)

    def _name_of(self, service: Service) -> str:
        return f"{service.metadata.name}.{service.metadata.namespace}.svc.{self.domain}"


def is_headless(service: Service) -> bool:
    """Whether the service has no address of its own by intent."""
    return service.spec.clusterIP == "None"


def _of_kind(found: Answer, kind: str) -> Answer:
    if kind == "ANY":
        return found
    # A CNAME answers for every type; there is nothing beside it.
    records = tuple(record for record in found.records if record.kind in (kind, "CNAME"))
    return Answer(records, found.extra if records else (), found.exists)


def _found(records: Iterable[Record]) -> Answer:
    each = tuple(dict.fromkeys(records))
    return Answer(each) if each else NO_NAME


def _numbers(ports: Sequence[ServicePort] | Sequence[EndpointPort], wanted: Port | None) -> list[int]:
    """The numbers of one port, or (None) of all."""
    return [each.port for each in ports if each.port and wanted in (None, (each.name, each.protocol.lower() or "tcp"))]


def _hostname(end: Endpoint) -> str:
    return end.hostname or end.addresses[0].replace(".", "-")


def _key(message: Service | EndpointSlice) -> Key:
    metadata = message.metadata
    return metadata.namespace, metadata.name


def _addresses(item: EndpointSlice) -> set[int]:
    known = (number(addresses[0]) for end in item.endpoints if (addresses := end.addresses))
    return {address for address in known if address is not None}
