"""From all services and slices to what a mode is asked for: the same value where nothing has changed."""

from __future__ import annotations

from nodeagent.proxy.desired import SERVICE, SLICE, Asked, Desired, Desires
from nodeagent.proxy.mode import Ranges
from nodeagent.proxy.services import HealthCheck
from podplane.v1 import endpointslice_pb2, service_pb2
from tests.nodeagent.proxy.objects import by_key, service, slice_of

RANGES = Ranges("10.0.0.0/24", "10.0.0.0/16")
PORTS = [("http", "TCP", 80, 0, 8080)]
WEB, API = service("web", "10.96.0.1", PORTS), service("api", "10.96.0.2", PORTS)
WEB_SLICE, API_SLICE = slice_of("web", PORTS, ["10.0.0.1"]), slice_of("api", PORTS, ["10.0.0.2"])


def made(
    desires: Desires,
    services: list[service_pb2.Service],
    slices: list[endpointslice_pb2.EndpointSlice],
    node: str = "node-1",
) -> Desired:
    return desires.of(Asked(*by_key(services, slices), node, 1), RANGES)


def addresses(desired: Desired, key: str) -> list[str]:
    return [endpoint.address for port in desired.wanted.services[key] for endpoint in port.endpoints]


def test_what_has_not_changed_is_the_same_value_and_what_was_given_stays_as_it_was() -> None:
    desires = Desires()
    first = made(desires, [WEB, API], [WEB_SLICE, API_SLICE])
    assert list(first.wanted.services) == ["default/api", "default/web"]
    moved = slice_of("web", PORTS, ["10.0.0.9"])
    second = made(desires, [API, WEB], [API_SLICE, moved])
    assert second.wanted.services["default/api"] is first.wanted.services["default/api"]
    assert addresses(second, "default/web") == ["10.0.0.9"]
    assert addresses(first, "default/web") == ["10.0.0.1"]
    again = made(desires, [WEB, API], [slice_of("web", PORTS, ["10.0.0.9"]), API_SLICE])
    assert again.wanted.services["default/web"] is second.wanted.services["default/web"]


def test_what_comes_and_goes_is_noticed_whatever_comes_first() -> None:
    desires = Desires()
    assert dict(made(desires, [], [WEB_SLICE]).wanted.services) == {}
    assert addresses(made(desires, [WEB], [WEB_SLICE]), "default/web") == ["10.0.0.1"]
    more = slice_of("web", PORTS, ["10.0.0.8"])
    assert addresses(made(desires, [WEB], [WEB_SLICE, more]), "default/web") == ["10.0.0.1", "10.0.0.8"]
    assert addresses(made(desires, [WEB], [more]), "default/web") == ["10.0.0.8"]
    assert addresses(made(desires, [WEB], []), "default/web") == []
    assert dict(made(desires, [], []).wanted.services) == {}
    assert list(made(desires, [WEB, API], [API_SLICE]).wanted.services) == ["default/api", "default/web"]


def test_a_service_that_nothing_can_be_made_of_is_named_and_keeps_what_it_has() -> None:
    desires = Desires()
    made(desires, [WEB, API], [WEB_SLICE, API_SLICE])
    wrong = service("web", "10.96.0.300", PORTS)
    found = made(desires, [wrong, API], [WEB_SLICE, API_SLICE])
    assert found.errors == {"default/web": "'10.96.0.300' is not an IPv4 address"}
    assert found.wanted.kept == {"default/web"}
    assert list(found.wanted.services) == ["default/api"]
    right = made(desires, [WEB, API], [WEB_SLICE, API_SLICE])
    assert (right.errors, list(right.wanted.services)) == ({}, ["default/api", "default/web"])


def test_a_service_that_keeps_its_rules_keeps_its_health_check() -> None:
    desires = Desires()
    balanced = service("web", "10.96.0.1", PORTS)
    balanced.spec.type, balanced.spec.externalTrafficPolicy, balanced.spec.healthCheckNodePort = (
        "LoadBalancer",
        "Local",
        32001,
    )
    wrong = service_pb2.Service()
    wrong.CopyFrom(balanced)
    wrong.status.loadBalancer.ingress.add(ip="nowhere")
    for asked, slices, ready in ((balanced, [WEB_SLICE], 1), (wrong, [WEB_SLICE], 1), (wrong, [], 0)):
        found = made(desires, [asked], slices)
        assert bool(found.errors) == (asked is wrong)
        assert found.checks == (HealthCheck(32001, "default/web", ready),)
    assert made(desires, [], []).checks == ()


def test_another_name_of_the_node_makes_other_endpoints_local() -> None:
    desires = Desires()
    for node, local in (("node-1", True), ("node-2", False)):
        [port] = made(desires, [WEB], [WEB_SLICE], node).wanted.services["default/web"]
        assert [endpoint.local for endpoint in port.endpoints] == [local]


def test_what_has_changed_is_told_and_nothing_else() -> None:
    desires = Desires()
    before = made(desires, [WEB], [WEB_SLICE]).wanted
    moved, wrong = slice_of("web", PORTS, ["10.0.0.9"]), service("web", "10.96.0.300", PORTS)
    for services, slices, changed in (
        ([WEB, API], [WEB_SLICE, API_SLICE], {"default/api"}),
        ([API, WEB], [API_SLICE, WEB_SLICE], set()),
        ([WEB, API], [moved, API_SLICE], {"default/web"}),
        ([wrong, API], [moved, API_SLICE], {"default/web"}),
        ([API], [API_SLICE], {"default/web"}),
        ([], [], {"default/api"}),
    ):
        after = made(desires, services, slices).wanted
        told = after.changed_since(before.services)
        assert told is not None
        assert set(told) == changed
        assert after.changed_since(dict(before.services)) is None
        before = after


def test_what_is_known_to_have_changed_is_looked_at_alone() -> None:
    desires = Desires()
    services, slices = by_key([WEB, API], [WEB_SLICE, API_SLICE])
    desires.of(Asked(services, slices, "node-1", 1), RANGES)
    moved = {**slices, ("default", "0"): slice_of("web", PORTS, ["10.0.0.9"])}
    unheeded = Asked({**services, ("default", "new"): service("new", "10.96.0.3", PORTS)}, moved, "node-1", 2,
                     [(SLICE, ("default", "0")), (SERVICE, ("default", "new"))])  # fmt: skip
    found = desires.of(Asked(services, moved, "node-1", 3, [(SERVICE, ("default", "new"))]).after(unheeded), RANGES)
    assert addresses(found, "default/web") == ["10.0.0.9"]
    assert list(found.wanted.services) == ["default/api", "default/web"]
    gone = Asked({("default", "api"): API}, moved, "node-1", 4, [(SERVICE, ("default", "web"))])
    assert list(desires.of(gone, RANGES).wanted.services) == ["default/api"]
    # Nothing is known to have changed, and so nothing has: who says so must know.
    assert list(desires.of(Asked(*by_key([], []), "node-1", 5, []), RANGES).wanted.services) == ["default/api"]
    assert gone.after(Asked(services, slices, "node-1", 1)).touched is None
