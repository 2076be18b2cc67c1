"""Each kind of name and question, against kubernetes/dns docs/specification.md."""

from __future__ import annotations

import pytest

from nodeagent.dns.zone import NO_DATA, NO_NAME, Answer, Record, Zone
from tests.nodeagent.dns.world import DOMAIN, RANGES, service, slice_of, zone

SVC = f"default.svc.{DOMAIN}"


def ask(zone: Zone, name: str, kind: str = "A") -> Answer | None:
    return zone.answer(tuple(name.split(".")), kind)


def found(zone: Zone, name: str, kind: str = "A") -> set[tuple[str | int, ...]]:
    answer = ask(zone, name, kind)
    assert answer is not None
    assert {record.name for record in answer.records} <= {name}
    return {record.data for record in answer.records}


@pytest.mark.parametrize(
    ("name", "kind", "data"),
    [
        # 2.2
        (f"dns-version.{DOMAIN}", "TXT", {("1.1.0",)}),
        # 2.3: a service with a cluster IP
        (f"web.{SVC}", "A", {("10.96.0.10",)}),
        (f"_http._tcp.web.{SVC}", "SRV", {(0, 100, 80, f"web.{SVC}")}),
        (f"_dns._udp.web.{SVC}", "SRV", {(0, 100, 53, f"web.{SVC}")}),
        ("10.0.96.10.in-addr.arpa", "PTR", {(f"web.{SVC}",)}),
        # 2.4: a headless service
        (f"db.{SVC}", "A", {("10.77.1.2",), ("10.77.2.3",)}),
        (f"db-0.db.{SVC}", "A", {("10.77.1.2",)}),
        (f"10-77-2-3.db.{SVC}", "A", {("10.77.2.3",)}),
        (f"all.{SVC}", "A", {("10.77.1.7",), ("10.77.1.8",)}),
        (
            f"_http._tcp.db.{SVC}",
            "SRV",
            {(0, 100, 8080, f"db-0.db.{SVC}"), (0, 100, 8080, f"10-77-2-3.db.{SVC}")},
        ),
        # where the specification is silent, as CoreDNS has it: all ports, of a service or of one endpoint
        (f"web.{SVC}", "SRV", {(0, 100, 80, f"web.{SVC}"), (0, 100, 53, f"web.{SVC}")}),
        (f"db.{SVC}", "SRV", {(0, 100, 8080, f"db-0.db.{SVC}"), (0, 100, 8080, f"10-77-2-3.db.{SVC}")}),
        (f"db-0.db.{SVC}", "SRV", {(0, 100, 8080, f"db-0.db.{SVC}")}),
        (f"10-77-1-5.web.{SVC}", "SRV", {(0, 100, 8080, f"10-77-1-5.web.{SVC}")}),
        ("2.1.77.10.in-addr.arpa", "PTR", {(f"db-0.db.{SVC}",)}),
        ("5.1.77.10.in-addr.arpa", "PTR", {(f"10-77-1-5.web.{SVC}",)}),
        # 2.5: an external name, whatever is asked
        (f"out.{SVC}", "A", {("www.example.com",)}),
        (f"out.{SVC}", "AAAA", {("www.example.com",)}),
        (f"out.{SVC}", "CNAME", {("www.example.com",)}),
        # pods, and the server itself
        (f"10-77-9-9.default.pod.{DOMAIN}", "A", {("10.77.9.9",)}),
        (DOMAIN, "NS", {(f"ns.dns.{DOMAIN}",)}),
        (f"ns.dns.{DOMAIN}", "A", {("10.77.1.1",)}),
    ],
)
def test_a_name_of_the_cluster_has_its_records(name: str, kind: str, data: set[tuple[str | int, ...]]) -> None:
    assert found(zone(), name, kind) == data


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (f"web.{SVC}", "AAAA"),
        (f"bare.{SVC}", "SRV"),
        (f"_tcp.web.{SVC}", "SRV"),
        (f"db.{SVC}", "AAAA"),
        (f"db-0.db.{SVC}", "TXT"),
        (f"_tcp.web.{SVC}", "A"),
        (f"_http._tcp.web.{SVC}", "A"),
        (DOMAIN, "A"),
        (f"svc.{DOMAIN}", "A"),
        (SVC, "A"),
        (f"default.pod.{DOMAIN}", "A"),
        (f"10-77-9-9.default.pod.{DOMAIN}", "AAAA"),
        ("10.0.96.10.in-addr.arpa", "A"),
    ],
)
def test_a_name_without_records_of_the_type_is_no_unknown_name(name: str, kind: str) -> None:
    answer = ask(zone(), name, kind)
    assert answer is not None
    assert (answer.records, answer.exists) == (NO_DATA.records, True)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (f"nothing.{SVC}", "A"),
        (f"web.other.svc.{DOMAIN}", "A"),
        (f"other.svc.{DOMAIN}", "A"),
        (f"none.{SVC}", "A"),
        (f"db-1.db.{SVC}", "A"),
        (f"db-2.db.{SVC}", "A"),
        (f"a.b.web.{SVC}", "A"),
        (f"a.b.c.web.{SVC}", "A"),
        (f"db-0.b.db.{SVC}", "SRV"),
        (f"db-2.db.{SVC}", "SRV"),
        (f"none.{SVC}", "SRV"),
        (f"_https._tcp.web.{SVC}", "SRV"),
        (f"_http._udp.web.{SVC}", "SRV"),
        (f"_udp.db.{SVC}", "A"),
        (f"x.out.{SVC}", "A"),
        (f"10-99-9-9.default.pod.{DOMAIN}", "A"),
        (f"10-77-9.default.pod.{DOMAIN}", "A"),
        (f"something.{DOMAIN}", "A"),
        (f"www.example.com.{SVC}", "A"),
        # An endpoint that is not ready, and nobody's, in ranges that are the cluster's alone.
        ("4.2.77.10.in-addr.arpa", "PTR"),
        ("99.0.96.10.in-addr.arpa", "PTR"),
    ],
)
def test_a_name_that_nothing_has_is_unknown(name: str, kind: str) -> None:
    assert ask(zone(), name, kind) == NO_NAME


@pytest.mark.parametrize(
    "name", ["www.example.com", "local", "notcluster.local", "9.113.0.203.in-addr.arpa", "77.10.in-addr.arpa", "com"]
)
def test_what_is_not_the_clusters_is_left_to_others(name: str) -> None:
    assert ask(zone(), name, "PTR") is None


def test_srv_records_bring_the_addresses_that_they_lead_to() -> None:
    answer = ask(zone(), f"_http._tcp.db.{SVC}", "SRV")
    assert answer is not None
    assert set(answer.extra) == {
        Record(f"db-0.db.{SVC}", "A", ("10.77.1.2",)),
        Record(f"10-77-2-3.db.{SVC}", "A", ("10.77.2.3",)),
    }
    for name in (f"_http._tcp.web.{SVC}", f"web.{SVC}"):
        portal = ask(zone(), name, "SRV")
        assert portal is not None
        assert portal.extra == (Record(f"web.{SVC}", "A", ("10.96.0.10",)),)


def test_answers_follow_endpoints_and_services() -> None:
    made = zone()
    made.put_slice(slice_of("db", ("10.77.2.4", "db-2", True)))
    assert found(made, f"db.{SVC}") == {("10.77.2.4",)}
    assert ask(made, f"db-0.db.{SVC}") == ask(made, "2.1.77.10.in-addr.arpa", "PTR") == NO_NAME
    made.put_slice(slice_of("db", ("10.77.3.3", "", True), ("10.77.2.4", "db-2", True), number=2))
    assert found(made, f"db.{SVC}") == {("10.77.2.4",), ("10.77.3.3",)}
    made.remove_slice(("default", "db-1"))
    assert found(made, "4.2.77.10.in-addr.arpa", "PTR") == {(f"db-2.db.{SVC}",)}
    made.remove_slice(("default", "db-2"))
    assert ask(made, f"db.{SVC}") == ask(made, "4.2.77.10.in-addr.arpa", "PTR") == NO_NAME
    made.remove_service(("default", "web"))
    assert ask(made, f"web.{SVC}") == ask(made, "10.0.96.10.in-addr.arpa", "PTR") == NO_NAME
    made.put_service(service("web", "10.96.0.11"))
    assert found(made, f"web.{SVC}") == {("10.96.0.11",)}


def test_an_address_is_called_by_its_headless_service() -> None:
    made = zone()
    made.put_slice(slice_of("web", ("10.77.1.2", "", True)))
    assert found(made, "2.1.77.10.in-addr.arpa", "PTR") == {(f"db-0.db.{SVC}",)}


def test_a_namespace_is_there_as_long_as_it_has_a_service() -> None:
    made = Zone(DOMAIN, ranges=RANGES)
    made.put_service(service("web", "10.96.0.1", namespace="shop"))
    made.put_service(service("web", "10.96.0.2", namespace="shop"))
    assert ask(made, f"shop.svc.{DOMAIN}") == NO_DATA
    made.remove_service(("shop", "web"))
    made.remove_service(("shop", "web"))
    assert ask(made, f"shop.svc.{DOMAIN}") == NO_NAME


def test_an_address_that_moved_to_another_service_has_the_new_name() -> None:
    made = zone()
    made.put_service(service("new", "10.96.0.10"))
    made.remove_service(("default", "web"))
    assert found(made, "10.0.96.10.in-addr.arpa", "PTR") == {(f"new.{SVC}",)}
