"""What differs after a change of a few services, and the layout that it needs."""

from __future__ import annotations

from nodeagent.proxy.elements import Changes
from nodeagent.proxy.mode import Ranges
from nodeagent.proxy.nftables.differences import HAIRPINS, by_parts, grown, layout_of, with_hairpins
from nodeagent.proxy.nftables.parts import Part, part
from nodeagent.proxy.nftables.script import only_grows, script
from nodeagent.proxy.services import Endpoint, ServicePort

RANGES = Ranges("10.0.0.0/24", "10.0.0.0/16")
HERE, THERE = Endpoint("10.0.0.1", 8080, True), Endpoint("10.0.1.1", 8080)
WEB = ServicePort("default/web", "http", "tcp", "10.96.0.1", 80, 0, (HERE, THERE))
OTHER = WEB._replace(service="default/other", cluster_ip="10.96.0.2")
MANY = WEB._replace(endpoints=tuple(Endpoint(f"10.0.1.{number}", 80) for number in range(100)))
STICKY = WEB._replace(affinity=60)
OLD = {"default/web": part([WEB]), "default/other": part([OTHER])}
LAYOUT = layout_of(OLD.values(), RANGES, None)


def test_usual_numbers_of_endpoints_leave_the_layout_as_it_is() -> None:
    for endpoints in ((HERE,), (), (THERE, HERE, Endpoint("10.0.1.2", 80))):
        assert grown(LAYOUT, OLD, {"default/web": part([WEB._replace(endpoints=endpoints)])}) is LAYOUT
    assert grown(LAYOUT, OLD, {"default/web": None}) is LAYOUT


def test_a_number_that_is_new_adds_a_chain_which_stays() -> None:
    more = grown(LAYOUT, OLD, {"default/web": part([MANY])})
    assert more is not None
    assert more.chains.keys() - LAYOUT.chains.keys() == {"pick-100"}
    assert only_grows(LAYOUT, more)
    assert not only_grows(more, LAYOUT)
    assert script(LAYOUT, more, Changes()).lines[0] == "add chain ip podplane-services pick-100"
    assert grown(more, {**OLD, "default/web": part([MANY])}, {"default/web": None}) is more
    assert layout_of(OLD.values(), RANGES, more) == more


def test_affinity_has_a_layout_of_its_own_that_goes_with_it() -> None:
    assert grown(LAYOUT, OLD, {"default/web": part([STICKY])}) is None
    sticky = layout_of([part([STICKY])], RANGES, LAYOUT)
    assert only_grows(LAYOUT, sticky)
    assert not only_grows(sticky, LAYOUT)
    assert not only_grows(sticky, layout_of([part([STICKY._replace(affinity=9)])], RANGES, sticky))
    assert not only_grows(None, LAYOUT)


def test_a_service_that_goes_takes_its_elements() -> None:
    changes = by_parts(OLD, {"default/web": None})
    assert {key for _, key in changes.gone} == OLD["default/web"].elements.keys()
    assert (changes.added, changes.count) == ([], 3)


def test_an_address_reaches_itself_as_long_as_any_service_leads_to_it() -> None:
    whole = with_hairpins({}, OLD)
    standing = {key: item for key, item in whole.items() if item is not None}
    assert standing[HAIRPINS].elements.keys() == {(HAIRPINS, "10.0.0.1 . 10.0.0.1")}
    less: dict[str, Part | None] = {"default/web": None}
    assert with_hairpins(standing, less) is less
    none = with_hairpins(standing, {"default/web": None, "default/other": None})[HAIRPINS]
    assert none is not None
    assert none.elements == {}
    both = WEB._replace(endpoints=(HERE, Endpoint("10.0.0.2", 8080, True)))
    more = with_hairpins(standing, {"default/web": part([both])})[HAIRPINS]
    assert more is not None
    assert [key for _, key in more.elements] == ["10.0.0.1 . 10.0.0.1", "10.0.0.2 . 10.0.0.2"]
    after = {**standing, "default/web": part([both]), HAIRPINS: more}
    assert with_hairpins(after, {"default/web": part([WEB])})[HAIRPINS] == standing[HAIRPINS]
    assert with_hairpins({}, after)[HAIRPINS] == more
    moved = {"default/web": part([WEB._replace(endpoints=(HERE, Endpoint("10.0.1.9", 80)))])}
    assert with_hairpins(standing, moved) is moved
