"""Elements as netlink messages: read back, they are the same."""

from __future__ import annotations

import pytest

from nodeagent.proxy.elements import Changes, Key, Value
from nodeagent.proxy.messages import requests
from nodeagent.proxy.nftables.reading import elements
from nodeagent.proxy.nftables.table import CONTAINERS, TABLE, endpoint_set

ELEMENTS: dict[Key, Value] = {
    ("portals", "10.96.0.1 . tcp . 80"): ("goto pick-2", "default/web:http"),
    ("portals", "10.96.0.1 . udp . 53"): ("drop", "default/web:dns"),
    ("node-ports", "tcp . 30080"): ("goto node-pick-2", "default/web:http"),
    ("inside", "10.96.0.2 . tcp . 65535"): ("goto pick-1", ""),
    ("backends-tcp", "10.96.0.1 . 80 . 0"): ("10.0.0.1 . 8080", ""),
    ("backends-tcp", "10.96.0.1 . 80 . 32768"): ("10.0.0.1 . 8080", ""),
    ("node-backends-udp", "30053 . 1"): ("10.0.0.1 . 53", ""),
    ("host-ports", "udp . 53"): ("10.0.0.9 . 53", "default/pod"),
    ("host-ports-at", "198.18.0.1 . tcp . 80"): ("10.0.0.9 . 80", "default/pod"),
    ("hairpins", "10.0.0.1 . 10.0.0.1"): ("", ""),
    ("eps-x", "10.0.0.1 . 8080"): ("", ""),
}
ALL = {**CONTAINERS, "eps-x": endpoint_set("eps-x")}


def test_what_is_written_is_what_the_kernel_would_tell() -> None:
    changes = Changes(added=[("default/web", key, value) for key, value in ELEMENTS.items()])
    found: dict[Key, Value] = {}
    made = requests(TABLE, changes, ALL)
    for request in made:
        container = request.asked.rpartition(" ")[2]
        found |= dict(elements(container, [request.body]))
    assert found == ELEMENTS
    assert len({request.asked for request in made}) == len(made) == len({container for container, _ in ELEMENTS})


def test_what_goes_is_named_before_what_comes_and_by_its_key_alone() -> None:
    key = ("portals", "10.96.0.1 . tcp . 80")
    gone, come = requests(TABLE, Changes(gone=[("", key)], added=[("", key, ("drop", ""))]), ALL)
    assert list(elements("portals", [gone.body])) == [(key, ("", ""))]
    assert list(elements("portals", [come.body])) == [(key, ("drop", ""))]
    assert gone.kind != come.kind


def test_many_elements_are_several_messages() -> None:
    keys = [("backends-tcp", f"10.0.{number // 200}.{number % 200} . 80 . 0") for number in range(5000)]
    made = requests(TABLE, Changes(added=[("", key, ("10.0.0.1 . 80", "")) for key in keys]), ALL)
    assert max(len(request.body) for request in made) < 1 << 16
    assert [key for request in made for key, _ in elements("backends-tcp", [request.body])] == keys


@pytest.mark.parametrize(
    ("key", "value"),
    [(("portals", "10.0.0.1 . tcp"), ("drop", "")), (("portals", "10.0.0.1 . tcp . 80"), ("jump pick-1", ""))],
)
def test_what_is_no_element_is_refused(key: Key, value: Value) -> None:
    with pytest.raises(ValueError):
        requests(TABLE, Changes(added=[("", key, value)]), ALL)
