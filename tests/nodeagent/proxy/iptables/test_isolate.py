"""The search for bad services, and what a restarted agent takes over: without a kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from nodeagent.proxy.iptables import adopt
from nodeagent.proxy.iptables.isolate import Entries, Entry, Isolator
from nodeagent.proxy.iptables.rules import Part, Rules, Tables, assemble, part
from nodeagent.proxy.mode import Ranges, RulesRefused
from nodeagent.proxy.services import ports_of
from tests.nodeagent.proxy.objects import Port, service, slice_of

RANGES = Ranges("10.77.1.0/24", "10.77.0.0/16")
NAMES = tuple("abcdefgh")
PORTS: list[Port] = [("http", "TCP", 80, 30080, 8080), ("", "UDP", 53, 0, 53)]


def entry(name: str, *endpoints: str) -> Entry:
    number = NAMES.index(name) + 1
    ports = [(title, protocol, port, node and node + number, to) for title, protocol, port, node, to in PORTS]
    made = service(name, f"10.96.0.{number}", ports)
    found = ports_of(made, [slice_of(name, ports, endpoints)], "node-1")
    return Entry(found, part(found, RANGES))


def tables(entries: Entries) -> Tables:
    return assemble((item.part for item in entries.values()), RANGES)


def own_lines(chains: Mapping[str, Rules]) -> set[tuple[str, str]]:
    return {(chain, rule) for chain, rules in chains.items() for rule in rules}


def test_what_each_service_has_is_found_again_in_the_rules() -> None:
    made = {f"default/{name}": entry(name, "10.77.1.2", "10.77.1.3") for name in "abc"}
    made["default/d"] = entry("d")  # without endpoints: refused
    assert adopt.parts(tables(made)) == {key: item.part for key, item in made.items()}


def test_rules_of_nobody_are_nobodys() -> None:
    nat = {
        "PODPLANE-SERVICES": ("-j RETURN", '-m comment --comment "no service" -j PODPLANE-SVC-X'),
        "PODPLANE-SVC-X": (),
    }
    assert adopt.parts({"nat": nat}) == {}
    assert adopt.parts({}) == {}


@pytest.mark.parametrize("bad", [{"a"}, {"d"}, {"h"}, {"a", "e"}, {"b", "c", "h"}])
def test_no_service_is_without_rules_while_bad_ones_are_searched_for(bad: set[str]) -> None:
    """After a restart: all of them have new endpoints, and some are refused with no word of which."""
    old = {f"default/{name}": entry(name, "10.77.1.2") for name in NAMES}
    new = {f"default/{name}": entry(name, "10.77.1.3") for name in NAMES}
    keys = [f"default/{name}" for name in bad]
    lines = {line for key in keys for line in own_lines(new[key].part.chains) - own_lines(old[key].part.chains)}
    taken: list[Tables] = []

    async def apply(wanted: Tables) -> None:
        if own_lines(wanted["nat"]) & lines:
            raise RulesRefused("iptables-restore: refused")
        taken.append(wanted)

    standing = {key: Entry(None, found) for key, found in adopt.parts(tables(old)).items()}
    stands, errors = asyncio.run(Isolator(apply, tables).apply(standing, new))
    assert errors.keys() == set(keys)
    for state in taken:
        for key, has in adopt.parts(state).items():
            assert has in (old[key].part, new[key].part)
        assert adopt.parts(state).keys() == new.keys()
    assert adopt.parts(taken[-1]) == {key: (old if key in errors else new)[key].part for key in new}
    assert stands == {key: standing[key] if key in errors else new[key] for key in new}


def test_a_service_whose_rules_stand_is_not_searched() -> None:
    same = {f"default/{name}": entry(name, "10.77.1.2") for name in NAMES}
    bad = {"default/bad": Entry((), Part({"PODPLANE-SVC-BAD": ("-j BAD",)}, portals=("-j PODPLANE-SVC-BAD",)))}
    tried: list[Tables] = []

    async def apply(wanted: Tables) -> None:
        tried.append(wanted)
        if "PODPLANE-SVC-BAD" in wanted["nat"]:
            raise RulesRefused("iptables-restore: refused")

    standing = {key: Entry(None, found) for key, found in adopt.parts(tables(same)).items()}
    stands, errors = asyncio.run(Isolator(apply, tables).apply(standing, {**same, **bad}))
    assert (list(errors), stands) == (["default/bad"], same)
    assert len(tried) == 2
