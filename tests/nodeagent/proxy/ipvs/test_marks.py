"""Firewall marks whose hashes are the same: everybody has his own, and keeps it."""

from __future__ import annotations

from itertools import count

import pytest

from nodeagent.proxy.ipvs.marks import SLOTS, Marks, hashed
from nodeagent.proxy.ipvs.plan import mark_names, part
from nodeagent.proxy.mode import Ranges
from nodeagent.proxy.services import Endpoint, ServicePort

RANGES = Ranges("10.77.1.0/24", "10.77.0.0/16")
HERE, THERE = Endpoint("10.77.1.2", 8080, local=True), Endpoint("10.77.2.9", 8080)
LOCAL = ServicePort(
    "default/s", "", "tcp", "10.96.0.10", 80, 30080, (HERE, THERE), local_endpoints=(HERE,), external_local=True
)


def numbered(number: int) -> ServicePort:
    return LOCAL._replace(service=f"default/s{number}")


def name_of(port: ServicePort) -> str:
    [name] = mark_names([port])
    return name


@pytest.fixture(scope="module")
def colliding() -> tuple[ServicePort, ServicePort]:
    """Two services whose names have one hash, found by trying."""
    seen: dict[int, ServicePort] = {}
    for number in count():
        port = numbered(number)
        if (other := seen.setdefault(hashed(name_of(port)), port)) is not port:
            return other, port
    raise AssertionError


def settle(marks: Marks, port: ServicePort) -> int:
    [slot] = marks.settle(port.service, mark_names([port])).values()
    return slot


def test_two_services_of_one_hash_have_a_mark_each(colliding: tuple[ServicePort, ServicePort]) -> None:
    marks = Marks({})
    one, other = (settle(marks, port) for port in colliding)
    assert (one, other) == (hashed(name_of(colliding[0])), one + 1)


def test_two_ports_of_one_service_have_a_virtual_server_each() -> None:
    marks = Marks({}, first=lambda _: SLOTS - 1)
    ports = [LOCAL, LOCAL._replace(name="other", port=81, node_port=30081)]
    slots = marks.settle("default/s", mark_names(ports))
    assert set(slots.values()) == {SLOTS - 1, 1}
    made = part(ports, RANGES, "rr", slots)
    assert len([front for front in made.servers if front.mark]) == 2
    assert len([front for front in made.servers if not front.mark]) == 2


def test_a_mark_stays_when_the_one_that_was_in_its_way_goes(colliding: tuple[ServicePort, ServicePort]) -> None:
    marks = Marks({})
    first, second = colliding
    one, other = settle(marks, first), settle(marks, second)
    marks.keep({second.service})
    assert settle(marks, second) == other
    assert settle(marks, first) == one


def test_a_restarted_agent_gives_the_same_marks_in_whichever_order(colliding: tuple[ServicePort, ServicePort]) -> None:
    before = Marks({})
    slots = {port.service: settle(before, port) for port in colliding}
    after = Marks(before.given)
    assert {port.service: settle(after, port) for port in reversed(colliding)} == slots
    assert after.given == before.given


def test_what_is_given_up_is_free_for_others() -> None:
    marks = Marks({}, first=lambda _: 7)
    marks.settle("default/a", {"x", "y"})
    marks.settle("default/a", {"y"})
    assert dict(marks.settle("default/b", {"z"})) == {"z": 7}
    marks.keep(())
    assert marks.given == {}


def test_asking_which_mark_it_would_be_takes_none() -> None:
    marks = Marks({})
    found = marks.find("default/s", {"x"})
    assert marks.given == {}
    assert marks.settle("default/s", {"x"}) == found
