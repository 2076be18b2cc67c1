"""Source, destination → where it went: the built rules in a model of a node."""

from __future__ import annotations

import re

import pytest

from nodeagent.proxy.iptables.rules import JUMPS, PREFIX, Tables, assemble, part
from nodeagent.proxy.mode import Ranges
from nodeagent.proxy.services import ports_of
from tests.nodeagent.proxy.iptables.packets import End, Model, Packet
from tests.nodeagent.proxy.objects import Port, service, slice_of

RANGES = Ranges("10.77.1.0/24", "10.77.0.0/16")
NODE, CLIENT, POD_A, POD_B, REMOTE = "198.18.0.1", "203.0.113.9", "10.77.1.2", "10.77.1.3", "10.77.2.9"
WEB, EMPTY = "10.96.0.10", "10.96.0.11"
WEB_PORTS: list[Port] = [("http", "TCP", 80, 30080, 8080), ("dns", "UDP", 80, 30080, 5353)]


def built(*endpoints: str) -> Tables:
    parts = []
    empty_ports: list[Port] = [("", "TCP", 80, 30081, 8080)]
    for made, slices in (
        (service("web", WEB, WEB_PORTS), [slice_of("web", WEB_PORTS, endpoints)]),
        (service("empty", EMPTY, empty_ports), []),
    ):
        parts.append(part(ports_of(made, slices, "node-1"), RANGES))
    return assemble(parts, RANGES)


@pytest.mark.parametrize(
    ("source", "destination", "port", "masqueraded"),
    [
        (POD_A, WEB, 80, False),
        (REMOTE, WEB, 80, False),
        (POD_B, WEB, 80, True),  # to itself
        (NODE, WEB, 80, True),
        (CLIENT, WEB, 80, True),
        (CLIENT, NODE, 30080, True),
        (POD_A, NODE, 30080, True),
        (NODE, NODE, 30080, True),
        ("127.0.0.1", "127.0.0.1", 30080, True),
        (POD_A, "10.77.1.1", 30080, True),
    ],
)
def test_a_service_leads_to_its_endpoint(source: str, destination: str, port: int, masqueraded: bool) -> None:
    model = Model(built(POD_B), {NODE, "10.77.1.1"})
    local = source in (NODE, "127.0.0.1")
    assert model.ends(Packet(source, destination, port, local=local)) == {End("ACCEPT", f"{POD_B}:8080", masqueraded)}


def test_tcp_and_udp_of_one_port_are_apart() -> None:
    model = Model(built(POD_B), {NODE})
    assert model.ends(Packet(POD_A, WEB, 80, "udp")) == {End("ACCEPT", f"{POD_B}:5353")}
    assert model.ends(Packet(CLIENT, NODE, 30080, "udp")) == {End("ACCEPT", f"{POD_B}:5353", True)}


def test_every_endpoint_can_be_reached_with_equal_chance() -> None:
    tables = built(POD_A, POD_B, REMOTE)
    ends = {end.to for end in Model(tables, {NODE}).ends(Packet(CLIENT, NODE, 30080))}
    assert ends == {f"{POD_A}:8080", f"{POD_B}:8080", f"{REMOTE}:8080"}
    chances = [
        [float(chance) for rule in rules for chance in re.findall(r"--probability (\S+)", rule)]
        for chain, rules in tables["nat"].items()
        if chain.startswith(f"{PREFIX}SVC")
    ]
    assert chances == [pytest.approx([1 / 3, 1 / 2], abs=1e-8)] * 2


@pytest.mark.parametrize(
    ("source", "destination", "port"),
    [(POD_A, EMPTY, 80), (NODE, EMPTY, 80), (CLIENT, EMPTY, 80), (CLIENT, NODE, 30081), (NODE, NODE, 30081)],
)
def test_without_endpoints_it_is_refused(source: str, destination: str, port: int) -> None:
    ends = Model(built(), {NODE}).ends(Packet(source, destination, port, local=source == NODE))
    assert ends == {End("REJECT", f"{destination}:{port}")}


@pytest.mark.parametrize(
    ("source", "destination", "end"),
    [
        (POD_A, CLIENT, End("ACCEPT", f"{CLIENT}:443", False)),
        (POD_A, REMOTE, End("ACCEPT", f"{REMOTE}:443", False)),
        (REMOTE, POD_A, End("ACCEPT", f"{POD_A}:443", False)),
        (CLIENT, POD_A, End("ACCEPT", f"{POD_A}:443", False)),
        (CLIENT, NODE, End("ACCEPT", f"{NODE}:443", False)),
        (CLIENT, "127.0.0.1", End("DROP", "127.0.0.1:443", False)),
    ],
)
def test_other_traffic_goes_its_way(source: str, destination: str, end: End) -> None:
    assert Model(built(POD_B), {NODE}).ends(Packet(source, destination, 443)) == {end}


def test_every_chain_is_ours_short_enough_and_there() -> None:
    tables = built(POD_A, POD_B)
    for table, chains in tables.items():
        targets = {f" {rule}".split(" -j ")[1].split()[0] for rules in chains.values() for rule in rules}
        targets |= {jump.rule.split()[-1] for jump in JUMPS if jump.table == table}
        assert {target for target in targets if target.startswith(PREFIX)} <= chains.keys()
        assert all(chain.startswith(PREFIX) and len(chain) <= 28 for chain in chains)


def test_a_service_on_another_port_has_chains_of_its_own() -> None:
    one = part(ports_of(service("web", WEB, WEB_PORTS), [slice_of("web", WEB_PORTS, [POD_A])], "n"), RANGES)
    other = part(ports_of(service("web2", EMPTY, WEB_PORTS), [slice_of("web2", WEB_PORTS, [POD_A])], "n"), RANGES)
    assert len(one.chains) == len(other.chains) == 4
    assert not one.chains.keys() & other.chains.keys()
