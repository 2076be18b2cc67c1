"""Which endpoints a service port has, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from nodeagent.proxy.services import Endpoint, ServicePort, Unprogrammable, ports_of, slices_by_service
from podplane.v1 import endpointslice_pb2, service_pb2
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


def _local(made: service_pb2.Service, slices: Sequence[endpointslice_pb2.EndpointSlice], node: str) -> ServicePort:
    made.spec.externalTrafficPolicy = "Local"
    return ports_of(made, slices, node)[0]


def test_policies_of_local_look_at_this_nodes_endpoints() -> None:
    here, there = slice_of("web", PORTS, ["10.0.0.2"], ["10.0.0.3"]), slice_of("web", PORTS, ["10.0.1.2"])
    for endpoint in there.endpoints:
        endpoint.nodeName = "node-2"
    port = _local(service("web", "10.96.0.1", PORTS), [here, there], "node-1")
    assert [item.address for item in port.internal] == ["10.0.0.2", "10.0.1.2"]
    assert port.external == port.local_endpoints == (Endpoint("10.0.0.2", 8080, True),)
    assert port.reachable == port.internal
    port = _local(service("web", "10.96.0.1", PORTS), [here, there], "node-3")
    assert (port.external, len(port.endpoints)) == ((), 2)
    made = service("web", "10.96.0.1", PORTS)
    made.spec.type, made.spec.internalTrafficPolicy = "ClusterIP", "Local"
    port = ports_of(made, [here, there], "node-2")[0]
    assert port.internal == port.reachable == (Endpoint("10.0.1.2", 8080, True),)
    assert len(port.endpoints) == 2


def test_this_nodes_leaving_endpoints_serve_its_clients_though_others_are_ready_elsewhere() -> None:
    here, there = slice_of("web", PORTS, [], ["10.0.0.3"]), slice_of("web", PORTS, ["10.0.1.2"])
    there.endpoints[0].nodeName = "node-2"
    port = _local(service("web", "10.96.0.1", PORTS), [here, there], "node-1")
    assert [item.address for item in port.external] == ["10.0.0.3"]
    assert [item.address for item in port.internal] == ["10.0.1.2"]


@pytest.mark.parametrize(("asked", "seconds"), [("", 0), ("None", 0), ("ClientIP", 60)])
def test_affinity_is_by_seconds(asked: str, seconds: int) -> None:
    made = service("web", "10.96.0.1", PORTS)
    made.spec.sessionAffinity = asked
    made.spec.sessionAffinityConfig.clientIP.timeoutSeconds = 60
    assert [port.affinity for port in ports_of(made, [], "node-1")] == [seconds, seconds]


def test_a_load_balancers_addresses_are_those_that_it_does_not_translate() -> None:
    made = service("web", "10.96.0.1", PORTS)
    for ip, mode in (("198.51.100.7", ""), ("198.51.100.8", "VIP"), ("198.51.100.9", "Proxy")):
        made.status.loadBalancer.ingress.add(ip=ip, ipMode=mode)
    assert ports_of(made, [], "node-1")[0].load_balancer_ips == ()
    made.spec.type = "LoadBalancer"
    assert ports_of(made, [], "node-1")[0].load_balancer_ips == ("198.51.100.7", "198.51.100.8")


def test_an_endpoints_port_without_a_number_is_passed_over() -> None:
    ports = [("http", "TCP", 80, 0, 8080), ("admin", "TCP", 81, 0, 8081)]
    item = slice_of("web", ports, ["10.77.1.2"])
    item.ports[0].ClearField("port")
    http, admin = ports_of(service("web", "10.96.0.10", ports), [item], "node-1")
    assert (http.endpoints, [str(each) for each in admin.endpoints]) == ((), ["10.77.1.2:8081"])


def test_a_load_balancers_ipv6_address_is_passed_over_and_a_wrong_one_refused() -> None:
    made = service("web", "10.96.0.10", [("", "TCP", 80, 0, 8080)])
    made.spec.type = "LoadBalancer"
    for ip in ("2001:db8::7", "198.51.100.7"):
        made.status.loadBalancer.ingress.add(ip=ip)
    assert ports_of(made, [], "node-1")[0].load_balancer_ips == ("198.51.100.7",)
    made.status.loadBalancer.ingress.add(ip="::nonsense::")
    with pytest.raises(Unprogrammable, match="'::nonsense::' is not an IPv4 address"):
        ports_of(made, [], "node-1")
