"""The order of a transaction, and who is to blame for a line of it."""

from __future__ import annotations

from nodeagent.proxy.elements import Changes
from nodeagent.proxy.nftables.script import Layout, first_error, rule_count, script
from nodeagent.proxy.nftables.table import CONTAINERS, affinity_map, endpoint_set, is_pick, pick_rules

CLIENTS, KNOWN = affinity_map("aff-x", 60), endpoint_set("eps-x")
PORTALS = {"portals": CONTAINERS["portals"]}


def test_what_is_referred_to_comes_before_and_goes_after() -> None:
    old = Layout("", {"pick-1": pick_rules("pick-1"), "record-x": ("counter",)}, {**PORTALS, "aff-x": CLIENTS})
    new = Layout("", {"pick-2": pick_rules("pick-2")}, {**PORTALS, "eps-x": KNOWN})
    changes = Changes(
        gone=[("a/b", ("portals", "10.0.0.1 . tcp . 80")), ("a/b", ("aff-x", "10.0.0.9"))],
        added=[("a/b", ("portals", "10.0.0.1 . tcp . 80"), ("goto pick-2", "a/b"))],
    )
    lines = script(old, new, changes).lines
    assert [
        line.split(" ip podplane-services ")[0] + " " + line.split()[-1 if "chain" in line else 4] for line in lines
    ] == [
        "add set eps-x",
        "add chain pick-2",
        "add rule pick-2",
        "add rule pick-2",
        "delete element portals",
        "add element portals",
        "flush chain pick-1",
        "flush chain record-x",
        "delete chain pick-1",
        "delete chain record-x",
        "delete map aff-x",
    ]
    assert lines[5].endswith('portals { 10.0.0.1 . tcp . 80 comment "a/b" : goto pick-2 }')


def test_a_chain_that_changes_is_filled_anew_and_one_that_is_not_known_is_let_alone() -> None:
    old = Layout("", {"stay-x": ("goto pick-1",), "stay-y": None}, PORTALS)
    new = Layout("", {"stay-x": ("goto pick-2",), "stay-y": None}, PORTALS)
    assert script(old, new, Changes()).lines == [
        "flush chain ip podplane-services stay-x",
        "add rule ip podplane-services stay-x goto pick-2",
    ]
    assert script(old, old, Changes()).lines == []


def test_a_table_that_is_not_ours_goes_in_the_same_transaction() -> None:
    hook = ("type nat hook output priority -100", "jump services")
    lines = script(None, Layout("podplane 1", {"output": hook}, {}), Changes()).lines
    assert lines[:3] == [
        "add table ip podplane-services",
        "delete table ip podplane-services",
        'add table ip podplane-services { comment "podplane 1"; }',
    ]
    assert lines[3] == "add chain ip podplane-services output { type nat hook output priority -100; policy accept; }"
    assert rule_count(hook) == 1


def test_apart_each_line_has_its_service() -> None:
    places = {f"a/{number}": ("portals", f"10.0.0.{number} . tcp . 80") for number in range(3)}
    changes = Changes(added=[(owner, key, ("drop", owner)) for owner, key in places.items()])
    together = script(Layout("", {}, PORTALS), Layout("", {}, PORTALS), changes)
    assert (len(together.lines), together.owners) == (1, [""])
    apart = script(Layout("", {}, PORTALS), Layout("", {}, PORTALS), changes, apart=True)
    assert apart.owners == list(places)
    message = "/dev/stdin:2:36-40: Error: Could not process rule: File exists\nadd element ...\n"
    assert apart.blamed(message) == ("a/1", apart.lines[1])
    assert apart.blamed("Error: no place") == ("", "")
    assert first_error(message) == "Could not process rule: File exists"


def test_many_elements_are_several_lines() -> None:
    changes = Changes(
        added=[("", ("portals", f"10.0.{n // 200}.{n % 200} . tcp . 80"), ("drop", "")) for n in range(5000)]
    )
    lines = script(Layout("", {}, PORTALS), Layout("", {}, PORTALS), changes).lines
    assert [line.count("drop") for line in lines] == [2000, 2000, 1000]


def test_the_name_of_a_shared_chain_says_what_it_does() -> None:
    assert [is_pick(name) for name in ("pick-3", "node-local-pick-12", "stay-x", "node-stay-x")] == [
        True,
        True,
        False,
        False,
    ]
    assert pick_rules("node-local-pick-12")[0] == (
        "meta l4proto tcp dnat ip to tcp dport . numgen random mod 12 offset 32768 map @node-backends-tcp"
    )
