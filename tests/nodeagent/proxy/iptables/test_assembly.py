"""What is joined anew where little has changed is what joining all of it makes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from nodeagent.proxy.iptables.assembly import Assembly
from nodeagent.proxy.iptables.isolate import Entry
from nodeagent.proxy.iptables.rules import assemble, part
from nodeagent.proxy.mode import Ranges
from nodeagent.proxy.services import Endpoint, HostPort, ports_of
from tests.nodeagent.proxy.objects import Port, service, slice_of

RANGES, OTHERS = Ranges("10.77.1.0/24", "10.77.0.0/16"), Ranges("10.77.1.0/24", "10.78.0.0/15")
HOST_PORTS = (HostPort("default/pod", "tcp", "", 80, Endpoint("10.77.1.2", 80, True)),)
ADDRESSES = ("10.77.1.2", "10.77.1.3", "10.77.2.4", "10.77.2.5")


def made(name: str, *addresses: str) -> Entry:
    number = "abc".index(name)
    ports: list[Port] = [("http", "TCP", 80, 30080 + number, 8080)]
    slices = slice_of(name, ports, addresses)
    for endpoint in slices.endpoints:
        endpoint.nodeName = "node-1" if endpoint.addresses[0].startswith("10.77.1.") else "node-2"
    found = ports_of(service(name, f"10.96.0.{number + 1}", ports), [slices], "node-1")
    return Entry(found, part(found, RANGES))


CHANGES = st.tuples(st.sampled_from("abc"), st.none() | st.frozensets(st.sampled_from(ADDRESSES)))
"""A service's endpoints, or that it is gone."""
WORLDS = st.sampled_from([(RANGES, ()), (RANGES, HOST_PORTS), (OTHERS, ())])


@settings(deadline=None)
@given(st.lists(st.tuples(st.lists(CHANGES, max_size=3), WORLDS), max_size=8))
def test_it_is_the_same_as_joining_all(
    steps: list[tuple[list[tuple[str, frozenset[str] | None]], tuple[Ranges, tuple[HostPort, ...]]]],
) -> None:
    assembly, entries = Assembly(), dict[str, Entry]()
    for changes, (ranges, host_ports) in steps:
        entries = dict(entries)  # what was handed out stays as it is
        for name, addresses in changes:
            entries.pop(name, None)
            if addresses is not None:
                entries[name] = made(name, *sorted(addresses))
        entries = dict(sorted(entries.items()))
        assert assembly.of(entries, ranges, host_ports) == assemble(
            (entry.part for entry in entries.values()), ranges, host_ports
        )


def test_other_endpoints_leave_what_all_share_as_it_is() -> None:
    assembly, entries = Assembly(), {name: made(name, "10.77.2.4") for name in "abc"}
    before = assembly.of(entries, RANGES)
    after = assembly.of({**entries, "b": made("b", "10.77.2.5")}, RANGES)
    assert after != before
    changed = [chain for chain, rules in after["nat"].items() if before["nat"][chain] is not rules]
    assert [chain[:13] for chain in changed] == ["PODPLANE-SVC-", "PODPLANE-EXT-"]
    assert after["filter"] is before["filter"]
