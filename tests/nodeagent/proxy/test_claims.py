"""Who is asked for where: places that several services want."""

from __future__ import annotations

from nodeagent.proxy.desired import Asked, Desired, Desires
from nodeagent.proxy.mode import Ranges
from nodeagent.proxy.services import ServicePort
from podplane.v1 import service_pb2
from tests.nodeagent.proxy.objects import by_key, service

RANGES = Ranges("10.0.0.0/24", "10.0.0.0/16")
BALANCED, OTHER = "192.0.2.50", "192.0.2.51"


def balanced(name: str, address: str, *ips: str, node_port: int = 0, created: int = 0) -> service_pb2.Service:
    made = service(name, address, [("", "TCP", 80, node_port, 8080)])
    made.spec.type = "LoadBalancer"
    made.metadata.creationTimestamp.seconds = created
    for ip in ips:
        made.status.loadBalancer.ingress.add(ip=ip)
    return made


class Node:
    """Is told of services, one list after the other."""

    def __init__(self) -> None:
        self._desires = Desires()

    def told(self, *services: service_pb2.Service) -> Desired:
        return self._desires.of(Asked(*by_key(services, []), "node-1", 1), RANGES)


def port(found: Desired, name: str) -> ServicePort:
    [only] = found.wanted.services[f"default/{name}"]
    return only


def who(found: Desired, ip: str) -> list[str]:
    """The services that have a load balancer's address."""
    return [key for key, ports in found.wanted.services.items() if any(ip in each.load_balancer_ips for each in ports)]


def test_the_older_has_an_address_and_the_other_has_all_else_of_its_own() -> None:
    node = Node()
    first, other = (
        balanced("first", "10.96.0.1", BALANCED),
        balanced("a", "10.96.0.2", BALANCED, OTHER, node_port=30002, created=1),
    )
    assert node.told(first).lacking == {}
    found = node.told(first, other)
    assert found.lacking == {"default/a": f"{BALANCED}:80/TCP is already that of default/first"}
    assert (found.errors, found.wanted.kept) == ({}, frozenset())
    assert who(found, BALANCED) == ["default/first"]
    assert port(found, "a").load_balancer_ips == (OTHER,)
    assert (port(found, "a").cluster_ip, port(found, "a").node_port) == ("10.96.0.2", 30002)


def test_it_is_the_others_once_it_is_free() -> None:
    node = Node()
    first, other = balanced("first", "10.96.0.1", BALANCED), balanced("a", "10.96.0.2", BALANCED, created=1)
    node.told(first)
    lacking = node.told(first, other).wanted.services["default/a"]
    assert node.told(first, other).wanted.services["default/a"] is lacking
    found = node.told(balanced("first", "10.96.0.1", OTHER), other)
    assert (found.lacking, who(found, BALANCED), who(found, OTHER)) == ({}, ["default/a"], ["default/first"])
    found = node.told(other)
    assert (found.lacking, who(found, BALANCED)) == ({}, ["default/a"])


def test_who_has_it_is_the_same_whatever_a_node_has_seen_before() -> None:
    """Or one address would lead to one service here and to another there, and change with an agent's restart."""
    young, old = balanced("a", "10.96.0.1", BALANCED, created=9), balanced("z", "10.96.0.2", BALANCED, created=8)
    for seen in ([], [young], [old], [young, old]):
        node = Node()
        node.told(*seen)
        found = node.told(young, old)
        assert who(found, BALANCED) == ["default/z"]
        assert list(found.lacking) == ["default/a"]


def test_one_that_is_made_anew_is_the_younger() -> None:
    node = Node()
    node.told(balanced("a", "10.96.0.1", BALANCED, created=1), balanced("z", "10.96.0.2", BALANCED, created=2))
    found = node.told(balanced("a", "10.96.0.1", BALANCED, created=3), balanced("z", "10.96.0.2", BALANCED, created=2))
    assert who(found, BALANCED) == ["default/z"]


def test_different_ports_of_an_address_are_different_places() -> None:
    one, other = balanced("one", "10.96.0.1", BALANCED), balanced("other", "10.96.0.2", BALANCED)
    other.spec.ports[0].port = 81
    assert who(Node().told(one, other), BALANCED) == ["default/one", "default/other"]


def test_a_cluster_address_is_its_services_whoever_has_asked_for_it_before() -> None:
    node = Node()
    thief = balanced("thief", "10.96.0.1", "10.96.0.2")
    assert who(node.told(thief), "10.96.0.2") == ["default/thief"]
    found = node.told(thief, balanced("victim", "10.96.0.2", created=9))
    assert found.lacking == {"default/thief": "10.96.0.2:80/TCP is already that of default/victim"}
    assert who(found, "10.96.0.2") == []


def test_a_node_port_that_another_has_is_gone_without_and_a_cluster_address_is_an_error() -> None:
    node = Node()
    one = balanced("one", "10.96.0.1", node_port=30001)
    node.told(one)
    two = balanced("two", "10.96.0.2", node_port=30001, created=1)
    found = node.told(one, two, balanced("three", "10.96.0.1", BALANCED, created=1))
    assert found.lacking == {"default/two": "node port 30001/TCP is already that of default/one"}
    assert port(found, "two").node_port == 0
    assert found.errors == {"default/three": "10.96.0.1:80/TCP is already that of default/one"}
    assert found.wanted.kept == {"default/three"}


def test_a_service_that_keeps_its_rules_keeps_its_places() -> None:
    node = Node()
    node.told(balanced("one", "10.96.0.1", BALANCED))
    found = node.told(balanced("one", "nowhere", BALANCED), balanced("two", "10.96.0.2", BALANCED))
    assert list(found.errors) == ["default/one"]
    assert found.lacking == {"default/two": f"{BALANCED}:80/TCP is already that of default/one"}
    found = node.told(balanced("two", "10.96.0.2", BALANCED))
    assert (found.errors, found.lacking, who(found, BALANCED)) == ({}, {}, ["default/two"])
