"""What a service adds to the table, and what a change of it costs."""

from __future__ import annotations

from nodeagent.proxy.nftables import adopt
from nodeagent.proxy.nftables.differences import by_elements, by_parts
from nodeagent.proxy.nftables.parts import Part, host_part, part, places
from nodeagent.proxy.nftables.table import CONTAINERS, PLAIN
from nodeagent.proxy.services import Endpoint, HostPort, ServicePort

HERE, THERE = Endpoint("10.0.0.1", 8080, True), Endpoint("10.0.1.1", 8080)
WEB = ServicePort("default/web", "http", "tcp", "10.96.0.1", 80, 30080, (HERE, THERE))
LOCAL = WEB._replace(external_local=True, local_endpoints=(HERE,))


def test_each_place_leads_to_a_chain_by_the_number_of_endpoints() -> None:
    made = part([WEB])
    assert made.elements == {
        ("portals-2", "10.96.0.1 . tcp . 80"): ("", "default/web:http"),
        ("backends-tcp", "10.96.0.1 . 80 . 0"): ("10.0.0.1 . 8080", ""),
        ("backends-tcp", "10.96.0.1 . 80 . 1"): ("10.0.1.1 . 8080", ""),
        ("node-ports-2", "tcp . 30080"): ("", "default/web:http"),
        ("node-backends-tcp", "30080 . 0"): ("10.0.0.1 . 8080", ""),
        ("node-backends-tcp", "30080 . 1"): ("10.0.1.1 . 8080", ""),
    }
    assert (made.chains, made.containers) == ({}, {})
    assert made.picks == {"pick-2", "node-pick-2"}
    assert made.hairpins == {"10.0.0.1"}
    assert places(made) == ["10.96.0.1 . tcp . 80", "tcp . 30080"]


def test_more_endpoints_than_have_a_set_lead_there_by_a_map() -> None:
    many = tuple(Endpoint(f"10.0.1.{number}", 8080) for number in range(PLAIN + 1))
    place = "10.96.0.1 . tcp . 80"
    for endpoints, key, value in (
        (many[1:], (f"portals-{PLAIN}", place), ""),
        (many, ("portals", place), f"goto pick-{PLAIN + 1}"),
    ):
        made = part([WEB._replace(endpoints=endpoints)])
        assert made.elements[key] == (value, "default/web:http")
        assert places(made) == [place, "tcp . 30080"]


def test_without_endpoints_it_is_refused_and_without_local_ones_dropped() -> None:
    assert part([WEB._replace(endpoints=())]).elements == {
        ("refused", "10.96.0.1 . tcp . 80"): ("", "default/web:http"),
        ("node-refused", "tcp . 30080"): ("", "default/web:http"),
    }
    made = part([LOCAL._replace(local_endpoints=(), endpoints=(THERE,))]).elements
    assert made["node-ports", "tcp . 30080"] == ("goto node-local", "default/web:http")
    assert made["node-inside", "tcp . 30080"] == ("goto node-pick-1", "")
    assert made["node-outside", "tcp . 30080"] == ("drop", "")
    made = part([WEB._replace(internal_local=True)]).elements
    assert made["portals", "10.96.0.1 . tcp . 80"] == ("drop", "default/web:http")


def test_this_nodes_endpoints_have_slots_of_their_own() -> None:
    made = part([LOCAL]).elements
    assert made["node-outside", "tcp . 30080"] == ("goto node-local-pick-1", "")
    assert made["node-backends-tcp", "30080 . 32768"] == ("10.0.0.1 . 8080", "")
    assert made["node-backends-tcp", "30080 . 1"] == ("10.0.1.1 . 8080", "")


def test_affinity_remembers_by_service_whichever_way_it_is_asked() -> None:
    made = part([LOCAL._replace(affinity=60)])
    clients = {name for name in made.containers if name.startswith("aff-")}
    assert made.sticky == {
        name: frozenset({"10.0.0.1 . 8080"} if "local" in name else {"10.0.0.1 . 8080", "10.0.1.1 . 8080"})
        for name in clients
    }
    assert len(clients) == 2
    stays = sorted(name for name in made.chains if "stay" in name)
    assert [name.partition("stay")[0] for name in stays] == ["node-", "node-", ""]
    [record] = [rules for name, rules in made.chains.items() if name.startswith("record-")]
    assert record is not None
    assert len(record) == 2
    assert all("timeout 60s" in rule for rule in record)


def test_a_change_of_one_endpoint_changes_three_elements_at_most_for_a_place() -> None:
    before = {"default/web": part([WEB]), **{f"a/{n}": part([WEB]) for n in range(3)}}
    one_less = part([WEB._replace(node_port=0, endpoints=(HERE,))])
    changes = by_parts(before, {**before, "default/web": one_less})
    assert len([key for _, key in changes.gone if key[0].startswith(("portals", "backends"))]) == 2
    assert [key for _, key, _ in changes.added] == [("portals-1", "10.96.0.1 . tcp . 80")]
    assert {owner for owner, _ in changes.gone} == {"default/web"}


def test_elements_in_the_kernel_are_compared_one_by_one() -> None:
    wanted = {"default/web": part([WEB])}
    present = dict(wanted["default/web"].elements)
    assert by_elements(present, wanted).added == []
    assert by_elements(present, wanted).gone == []
    del present["portals-2", "10.96.0.1 . tcp . 80"]
    present["node-ports-2", "tcp . 30080"] = ("", "")
    present["node-ports", "tcp . 30099"] = ("drop", "")
    changes = by_elements(present, wanted)
    added, gone = {key for _, key, _ in changes.added}, {key for _, key in changes.gone}
    assert added == {("portals-2", "10.96.0.1 . tcp . 80"), ("node-ports-2", "tcp . 30080")}
    assert gone == {("node-ports-2", "tcp . 30080"), ("node-ports", "tcp . 30099")}


def test_what_a_service_has_is_found_again_among_the_elements() -> None:
    others = part([ServicePort("default/other", "", "udp", "10.96.0.2", 80, 30080, (HERE,))])
    for mine in (part([WEB]), part([LOCAL]), part([LOCAL._replace(affinity=60)]), part([WEB._replace(endpoints=())])):
        hairpins = {("hairpins", f"{address} . {address}"): ("", "") for address in mine.hairpins}
        elements = {**others.elements, **mine.elements, **hairpins}
        containers = {**CONTAINERS, **adopt.containers_named(list(mine.containers))}
        found = adopt.parts({"default/web"}, elements, containers)["default/web"]
        assert (found.elements, found.hairpins) == (mine.elements, mine.hairpins)
        assert found.chains.keys() == mine.chains.keys()
        assert found.containers.keys() == mine.containers.keys()
        assert found.picks >= mine.picks
    assert adopt.parts({"default/none"}, dict(others.elements), CONTAINERS) == {}


def test_host_ports_lead_to_pods_at_one_address_or_at_all() -> None:
    made = host_part([HostPort("default/a", "tcp", "", 80, HERE), HostPort("default/b", "udp", "10.0.0.9", 53, HERE)])
    assert made == Part(
        {
            ("host-ports", "tcp . 80"): ("10.0.0.1 . 8080", "default/a"),
            ("host-ports-at", "10.0.0.9 . udp . 53"): ("10.0.0.1 . 8080", "default/b"),
        },
        hairpins=frozenset({"10.0.0.1"}),
    )
