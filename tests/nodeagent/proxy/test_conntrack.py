"""Which flows must be forgotten when a service changes."""

from __future__ import annotations

from nodeagent.proxy.conntrack import Stale, stale
from nodeagent.proxy.services import Endpoint, ServicePort

DNS = ServicePort("default/dns", "dns", "udp", "10.96.0.2", 53, 30053, (Endpoint("10.0.0.1", 5353),))
MOVED = DNS._replace(endpoints=(Endpoint("10.0.0.2", 5353),))
NEW = frozenset({("10.0.0.2", 5353)})


def test_a_change_keeps_the_flows_of_those_that_still_answer() -> None:
    assert stale([DNS], [MOVED]) == {Stale("10.96.0.2", 53, NEW), Stale(None, 30053, NEW)}


def test_a_restarted_agent_looks_at_all_of_them() -> None:
    assert stale([], [MOVED]) == {Stale("10.96.0.2", 53, NEW), Stale(None, 30053, NEW)}


def test_a_port_that_goes_keeps_none() -> None:
    assert stale([DNS], []) == {Stale("10.96.0.2", 53, frozenset()), Stale(None, 30053, frozenset())}


def test_nothing_changed_or_tcp_forgets_nothing() -> None:
    assert stale([DNS], [DNS]) == frozenset()
    assert stale([DNS._replace(protocol="tcp")], [MOVED._replace(protocol="tcp")]) == frozenset()
