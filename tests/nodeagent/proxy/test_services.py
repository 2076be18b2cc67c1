"""Which endpoints a service port has, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nodeagent.proxy.services import Endpoint, Unprogrammable, ports_of, slices_by_service
from podplane.v1 import service_pb2
from tests.nodeagent.proxy.objects import Port, service, slice_of

PORTS: list[Port] = [("http", "TCP", 80, 30080, 8080), ("dns", "UDP", 53, 0, 5353)]


def endpoints(ready: list[str], leaving: list[str], unready: list[str]) -> list[str]:
    slices = [slice_of("web", PORTS, ready, leaving, unready)]
    return [item.address for item in ports_of(service("web", "10.96.0.1", PORTS), slices, "node-1")[0].endpoints]


def test_only_ready_endpoints_serve() -> None:
    assert endpoints(["10.0.0.3", "10.0.0.2"], ["10.0.0.4"], ["10.0.0.5"]) == ["10.0.0.2", "10.0.0.3"]


def test_where_none_is_ready_those_that_are_leaving_still_serve() -> None:
    assert endpoints([], ["10.0.0.4"], ["10.0.0.5"]) == ["10.0.0.4"]


def test_otherwise_there_are_none() -> None:
    assert endpoints([], [], ["10.0.0.5"]) == []


def test_unset_conditions_mean_ready() -> None:
    made = slice_of("web", PORTS, ["10.0.0.2"])
    made.endpoints[0].ClearField("conditions")
    port = ports_of(service("web", "10.96.0.1", PORTS), [made], "node-1")[0]
    assert port.endpoints == (Endpoint("10.0.0.2", 8080, True),)


def test_slices_join_and_doubles_fall_together() -> None:
    slices = [slice_of("web", PORTS, ["10.0.0.2", "10.0.0.3"]), slice_of("web", PORTS, ["10.0.0.3", "10.0.0.4"])]
    port = ports_of(service("web", "10.96.0.1", PORTS), slices, "node-2")[1]
    assert port.endpoints == tuple(Endpoint(f"10.0.0.{number}", 5353) for number in (2, 3, 4))


def test_a_named_target_may_differ_between_slices() -> None:
    other: list[Port] = [("http", "TCP", 80, 0, 9090)]
    slices = [slice_of("web", PORTS, ["10.0.0.2"]), slice_of("web", other, ["10.0.0.3"])]
    http, dns = ports_of(service("web", "10.96.0.1", PORTS), slices, "node-2")
    assert [str(item) for item in http.endpoints] == ["10.0.0.2:8080", "10.0.0.3:9090"]
    assert [str(item) for item in dns.endpoints] == ["10.0.0.2:5353"]


def test_slices_are_found_by_their_label_and_namespace() -> None:
    mine, foreign, orphan = (slice_of("web", PORTS, []) for _ in range(3))
    foreign.metadata.namespace = "other"
    del orphan.metadata.labels["kubernetes.io/service-name"]
    assert slices_by_service([mine, foreign, orphan]) == {"default/web": (mine,), "other/web": (foreign,)}


@pytest.mark.parametrize(("field", "value"), [("clusterIP", "None"), ("type", "ExternalName"), ("clusterIP", "")])
def test_services_without_an_address_have_no_rules(field: str, value: str) -> None:
    made = service("web", "10.96.0.1", PORTS)
    setattr(made.spec, field, value)
    assert ports_of(made, [], "node-1") == ()


def test_a_cluster_ip_service_has_no_node_port() -> None:
    made = service("web", "10.96.0.1", PORTS)
    made.spec.type = "ClusterIP"
    assert [port.node_port for port in ports_of(made, [], "node-1")] == [0, 0]


def _set(path: str, value: object) -> Callable[[service_pb2.Service], None]:
    def change(made: service_pb2.Service) -> None:
        target: object = made.metadata if path.startswith("metadata.") else made.spec
        if path.startswith("port."):
            target = made.spec.ports[0]
        setattr(target, path.rpartition(".")[2], value)

    return change


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("clusterIP", "10.96.0"),
        ("clusterIP", "fd00::1"),
        ("metadata.name", 'x" -j ACCEPT\n-A INPUT'),
        ("metadata.namespace", "a b"),
        ("port.name", 'x"'),
        ("port.port", 0),
        ("port.port", 70000),
        ("port.nodePort", -1),
        ("port.protocol", "SCTP"),
    ],
)
def test_what_no_rule_can_be_made_of_is_refused(path: str, value: object) -> None:
    made = service("web", "10.96.0.1", PORTS)
    _set(path, value)(made)
    with pytest.raises(Unprogrammable):
        ports_of(made, [], "node-1")
