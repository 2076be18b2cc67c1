"""What a service becomes in mode ipvs: virtual servers, addresses, elements."""

from __future__ import annotations

import pytest

from nodeagent.proxy.ipvs import table
from nodeagent.proxy.ipvs.marks import Marks
from nodeagent.proxy.ipvs.plan import Front, Part, Server, host_ports, mark_names, part, shares, spelled
from nodeagent.proxy.mode import Ranges
from nodeagent.proxy.services import Endpoint, HostPort, ServicePort

RANGES = Ranges("10.77.1.0/24", "10.77.0.0/16")
HERE, THERE = Endpoint("10.77.1.2", 8080, local=True), Endpoint("10.77.2.9", 8080)
WEB = ServicePort("default/web", "", "tcp", "10.96.0.10", 80, 30080, (HERE, THERE))
AT, NUMBER = "10.96.0.10 . tcp . 80", "tcp . 30080"


def made(port: ServicePort) -> Part:
    return part([port], RANGES, "rr", Marks({}).settle(port.service, mark_names([port])))


def ends(port: ServicePort) -> dict[Front, frozenset[tuple[str, int]]]:
    return {front: server.targets for front, server in made(port).servers.items()}


def test_one_virtual_server_serves_the_cluster_address_and_the_node_port() -> None:
    found = made(WEB)
    targets = frozenset({("10.77.1.2", 8080), ("10.77.2.9", 8080)})
    assert found.servers == {Front("tcp", "10.96.0.10", 80): Server("rr", 0, targets)}
    assert set(found.addresses) == {"10.96.0.10"}
    assert found.elements == {
        ("served", AT): ("", "default/web"),
        ("node_ports", NUMBER): ("goto forward_port", "default/web"),
        ("forwarded_ports", NUMBER): ("10.96.0.10 . 80", "default/web"),
        ("loopback_2", NUMBER): ("", "default/web"),
        ("loopback_tcp", "30080 . 0"): ("10.77.1.2 . 8080", "default/web"),
        ("loopback_tcp", "30080 . 1"): ("10.77.2.9 . 8080", "default/web"),
    }
    assert found.chains == {}


def test_other_endpoints_are_a_matter_of_virtual_servers_alone() -> None:
    inside = WEB._replace(node_port=0)
    before, after = made(inside), made(inside._replace(endpoints=(HERE,)))
    assert (before.elements, before.chains, before.digest) == (after.elements, after.chains, after.digest)
    assert before.servers != after.servers


@pytest.mark.parametrize("local", [False, True])
def test_no_chain_of_a_node_port_names_an_endpoint(local: bool) -> None:
    port = WEB._replace(external_local=local, local_endpoints=(HERE,))
    before, after = made(port), made(port._replace(endpoints=(HERE,)))
    assert before.chains == after.chains
    assert bool(before.chains) is local
    update = table.Update(table.changes(before.elements, after.elements))
    assert {name for _, (name, _) in update.changes.gone} == {"loopback_2", "loopback_tcp"}
    assert [key for _, key, _ in update.changes.added] == [("loopback_1", NUMBER)]


@pytest.mark.parametrize(("count", "slots"), [(1, 1), (5, 5), (16, 16), (17, 32), (1000, 1024), (1500, 1024)])
@pytest.mark.parametrize("affinity", [0, 60])
def test_localhost_chooses_among_slots_of_all_endpoints(count: int, slots: int, affinity: int) -> None:
    ends = tuple(Endpoint(f"10.77.{number // 200 + 2}.{number % 200}", 8080) for number in range(count))
    elements = made(WEB._replace(endpoints=ends, affinity=affinity)).elements
    chosen = [elements["loopback_tcp", f"30080 . {slot}"][0] for slot in range(slots)]
    assert sum(name == "loopback_tcp" for name, _ in elements) == slots
    assert set(chosen) == {f"{end.address} . 8080" for end in ends[:1024]}
    if affinity or count > 4:
        kind = "same" if affinity else "any"
        assert elements["loopback", NUMBER][0] == f"goto {kind}_{slots}"
        assert f"{kind}_{slots}" in table.chains(RANGES)
    else:
        assert (f"loopback_{slots}", NUMBER) in elements


def test_affinity_is_the_virtual_servers_own() -> None:
    assert {server.affinity for server in made(WEB._replace(affinity=60)).servers.values()} == {60}


def test_a_policy_of_local_outside_has_a_virtual_server_of_its_own() -> None:
    found = ends(WEB._replace(external_local=True, local_endpoints=(HERE,)))
    assert sorted(len(targets) for targets in found.values()) == [1, 2]
    (mark,) = (front for front in found if front.mark)
    assert mark.is_marked_ours
    assert not mark.is_udp


def test_a_policy_of_local_inside_leaves_the_node_port_to_all() -> None:
    found = ends(WEB._replace(internal_local=True, local_endpoints=(HERE,)))
    assert {bool(front.mark): len(targets) for front, targets in found.items()} == {False: 1, True: 2}


def test_without_endpoints_a_port_is_refused_and_without_local_ones_silent() -> None:
    refused = made(WEB._replace(endpoints=())).elements
    assert {refused["closed", AT], refused["closed_ports", "tcp . 30080"]} == {("goto refuse", "default/web")}
    silent = made(WEB._replace(internal_local=True)).elements
    assert (silent["closed", AT][0], ("node_ports", "tcp . 30080") in silent) == ("drop", True)


def test_host_ports_lead_by_address_where_they_have_one() -> None:
    any_address = HostPort("default/a", "tcp", "", 8080, HERE)
    found = host_ports([any_address, HostPort("default/b", "tcp", "192.0.2.1", 8080, THERE)])
    assert set(found.elements) == {("host_ports", "tcp . 8080"), ("host_ports_at", "192.0.2.1 . tcp . 8080")}
    assert len(found.chains) == 2
    assert not found.servers


def test_its_virtual_servers_and_elements_are_a_services_alone() -> None:
    found = {spelled(share) for share in shares(made(WEB))}
    ways = {f"{name} {NUMBER}" for name in ("node_ports", "forwarded_ports", "loopback_2")}
    slots = {"loopback_tcp 30080 . 0", "loopback_tcp 30080 . 1"}
    assert found == {"tcp 10.96.0.10:80", f"served {AT}", *ways, *slots}


def test_an_update_writes_what_differs_and_takes_a_chain_after_what_leads_to_it() -> None:
    port = WEB._replace(external_local=True, local_endpoints=(HERE,))
    before, after = made(port), made(port._replace(endpoints=(), local_endpoints=()))
    gone = before.chains.keys() - after.chains.keys()
    update = table.Update(table.changes(before.elements, after.elements), after.chains, gone)
    lines = update.text.splitlines()
    assert [line.split()[0] for line in lines] == [*["delete"] * 4, *["add"] * 2, "flush", "delete"]
    assert (update.count, update.is_plain) == (8, False)
    assert table.Update(table.changes(before.elements, before.elements)).count == 0
