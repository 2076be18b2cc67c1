"""What is told of one service whose endpoints other services share: without a kernel."""

from __future__ import annotations

from nodeagent.proxy.inspection import fill
from nodeagent.proxy.iptables import lines
from nodeagent.proxy.iptables.rules import HAIRPINS, JUMPS, Rules, assemble, hairpin, part
from nodeagent.proxy.iptables.text import Observed
from nodeagent.proxy.mode import Ranges
from nodeagent.proxy.services import ServicePort, ports_of
from podplane.v1.diagnosis_pb2 import ServiceRules
from tests.nodeagent.proxy.objects import Port, service, slice_of

RANGES = Ranges("10.77.1.0/24", "10.77.0.0/16")
PORTS: list[Port] = [("http", "TCP", 80, 0, 8080)]
MINE, SHARED, OTHERS = "10.77.1.2", "10.77.1.3", "10.77.1.4"


def ports(name: str, address: str, *endpoints: str) -> tuple[ServicePort, ...]:
    return ports_of(service(name, address, PORTS), [slice_of(name, PORTS, endpoints)], "node-1")


WEB, OTHER = ports("web", "10.96.0.1", MINE, SHARED), ports("other", "10.96.0.2", SHARED, OTHERS)


def told(hairpins: Rules) -> ServiceRules:
    """Of WEB, where both services' rules stand, and these in the chain of endpoints that reach themselves."""
    tables = assemble([part(WEB, RANGES), part(OTHER, RANGES)], RANGES)
    present = Observed({**tables, "nat": {**tables["nat"], HAIRPINS: hairpins}}, dict.fromkeys(JUMPS, 1))
    made = ServiceRules()
    fill(made, WEB, lines.inspection("default/web", WEB, RANGES, present))
    return made


def test_an_endpoint_of_another_service_is_no_strange_rule() -> None:
    found = told((hairpin(MINE), hairpin(SHARED), hairpin(OTHERS)))
    assert (list(found.missing), list(found.extra)) == ([], [])


def test_pods_miss_what_lets_an_endpoint_reach_itself() -> None:
    found = told((hairpin(SHARED), hairpin(OTHERS)))
    assert list(found.missing) == [f"nat {HAIRPINS}: {hairpin(MINE)}"]
    assert {way.source: list(way.missing) for way in found.ways} == {
        "pod": list(found.missing), "node": [], "outside": []}  # fmt: skip


def test_a_rule_of_nobodys_among_them_is_told() -> None:
    strange = "-j RETURN"
    found = told((strange, hairpin(MINE), hairpin(SHARED), hairpin(OTHERS)))
    assert list(found.extra) == [f"nat {HAIRPINS}: {strange}"]
