"""A small cluster as its DNS sees it, and servers of the rest of the world, for tests."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from ipaddress import IPv4Network

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from nodeagent.dns.zone import Ranges, Zone
from podplane.v1.endpointslice_pb2 import EndpointSlice
from podplane.v1.service_pb2 import Service

DOMAIN = "cluster.local"
RANGES = Ranges(IPv4Network("10.77.0.0/16"), IPv4Network("10.96.0.0/16"))


def service(name: str, cluster_ip: str, *ports: tuple[str, str, int], namespace: str = "default") -> Service:
    """ports: name, protocol, number."""
    made = Service()
    made.metadata.namespace, made.metadata.name = namespace, name
    made.spec.clusterIP, made.spec.type = cluster_ip, "ClusterIP"
    for port_name, protocol, number in ports:
        made.spec.ports.add(name=port_name, protocol=protocol, port=number)
    return made


def external(name: str, target: str) -> Service:
    made = service(name, "")
    made.spec.type, made.spec.externalName = "ExternalName", target
    return made


def slice_of(name: str, *ends: tuple[str, str, bool], port: int = 8080, number: int = 1) -> EndpointSlice:
    """ends: address, hostname ("": none), whether ready. One TCP port named http."""
    made = EndpointSlice(addressType="IPv4")
    made.metadata.namespace, made.metadata.name = "default", f"{name}-{number}"
    made.metadata.labels["kubernetes.io/service-name"] = name
    made.ports.add(name="http", protocol="TCP", port=port)
    for address, hostname, ready in ends:
        end = made.endpoints.add(addresses=[address])
        end.conditions.ready = ready
        if hostname:
            end.hostname = hostname
    return made


def zone() -> Zone:
    """web: a cluster IP. bare: one without ports. db: headless, one named and one not ready. all: headless, publishes
    every endpoint. none: has no endpoint. out, in, round: external names, to the world, to web and to itself."""
    made = Zone(DOMAIN, "10.77.1.1", RANGES)
    made.put_service(service("web", "10.96.0.10", ("http", "TCP", 80), ("dns", "UDP", 53)))
    made.put_slice(slice_of("web", ("10.77.1.5", "", True)))
    made.put_service(service("bare", "10.96.0.12"))
    made.put_service(service("db", "None", ("http", "TCP", 80)))
    made.put_slice(slice_of("db", ("10.77.1.2", "db-0", True), ("10.77.2.3", "", True), ("10.77.2.4", "db-2", False)))
    every = service("all", "None", ("http", "TCP", 80))
    every.spec.publishNotReadyAddresses = True
    made.put_service(every)
    made.put_slice(slice_of("all", ("10.77.1.7", "", True), ("10.77.1.8", "", False)))
    made.put_service(service("none", "None", ("http", "TCP", 80)))
    for name, target in (("out", "www.example.com"), ("in", f"web.default.svc.{DOMAIN}"), ("round", "")):
        made.put_service(external(name, target or f"round.default.svc.{DOMAIN}"))
    return made


Reply = Callable[[dns.message.Message, bool], "dns.message.Message | bytes | None"]
"""(query, whether by TCP) → the answer; None: silence."""


class Outside:
    """A DNS server of the rest of the world, by UDP and TCP."""

    def __init__(self, reply: Reply, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.asked: list[str] = []
        self._reply = reply
        self._stream = socket.create_server(address)
        self.address: tuple[str, int] = self._stream.getsockname()
        self._datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._datagrams.bind(self.address)
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._by_udp, self._by_tcp)]
        for thread in self._threads:
            thread.start()

    def _answer(self, data: bytes, stream: bool) -> bytes | None:
        query = dns.message.from_wire(data)
        self.asked.append(query.question[0].to_text())
        answer = self._reply(query, stream)
        return answer.to_wire(max_size=65535) if isinstance(answer, dns.message.Message) else answer

    def _by_udp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, client = self._datagrams.recvfrom(2000)
                if not data:
                    return
                if (answer := self._answer(data, False)) is not None:
                    self._datagrams.sendto(answer, client)

    def _by_tcp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._stream.accept()
                with connection:
                    data = connection.recv(2000)
                    if (answer := self._answer(data[2:], True)) is not None:
                        connection.sendall(len(answer).to_bytes(2, "big") + answer)

    def close(self) -> None:
        for each in (self._datagrams, self._stream):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()


def says(*records: str, rcode: int = dns.rcode.NOERROR, soa: str = "", cut: bool = False) -> Reply:
    """Always these records (`name ttl IN type data`); cut: by UDP only that there is more."""

    def reply(query: dns.message.Message, stream: bool) -> dns.message.Message:
        made = dns.message.make_response(query)
        made.set_rcode(dns.rcode.Rcode(rcode))
        if cut and not stream:
            made.flags |= dns.flags.TC
            return made
        for part, lines in ((made.answer, records), (made.authority, (soa,) if soa else ())):
            for line in lines:
                part.append(dns.rrset.from_text(*line.split(" ", 4)))  # type: ignore[arg-type]
        return made

    return reply
