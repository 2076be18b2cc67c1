"""Virtual servers as values: what the kernel's text says, and what turns it into what is wanted."""

from __future__ import annotations

from collections.abc import Mapping

from nodeagent.proxy.ipvs.plan import Front, Server, Target
from nodeagent.proxy.ipvs.servers import (
    DRAIN_BOUND,
    DeleteReal,
    DeleteServer,
    PutReal,
    PutServer,
    Real,
    Standing,
    Step,
    Virtual,
    additions,
    after,
    leaving,
    parse,
    removals,
)

TCP, UDP, MARKED = Front("tcp", "10.96.0.10", 80), Front("udp", "10.96.0.10", 53), Front(mark=0x40B1)
A, B = ("10.77.1.2", 8080), ("10.77.1.3", 8080)
TEXT = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A60000A:0050 rr persistent 25000 FFFFFFFF
  -> 0A4D0102:1F90      Masq    1      2          1
  -> 0A4D0103:1F90      Masq    0      0          0
UDP  0A60000A:0035 sh
TCP  [2001:0db8:0000:0000:0000:0000:0000:0001]:0050 rr
  -> [2001:0db8:0000:0000:0000:0000:0000:0002]:0050      Masq    1      0          0
FWM  000040B1 rr
  -> 0A4D0102:1F90      Route   1      0          0
"""


def wanted(*targets: Target, affinity: int = 0) -> Server:
    return Server("rr", affinity, frozenset(targets))


def steps(standing: Standing, servers: Mapping[Front, Server], since: float | None = None) -> list[Step]:
    """Additions, then removals as the node does them; `since`: for how long what leaves has been leaving."""
    first = list(additions(standing, servers))
    there = after(standing, first)
    began = {} if since is None else dict.fromkeys(leaving(there, servers), -since)
    return first + list(removals(there, servers, began, 0.0))


def test_the_kernels_text_is_read_and_what_is_never_ours_passed_over() -> None:
    assert parse(TEXT, 250) == {
        TCP: Virtual("rr", 100, {A: Real(1, 3), B: Real(0, 0)}),
        UDP: Virtual("sh", 0, {}),
        MARKED: Virtual("rr", 0, {A: Real(1, 0, "Route")}),
    }


def test_what_is_right_is_not_written() -> None:
    assert steps({TCP: Virtual("rr", 5, {A: Real(1, 7)})}, {TCP: wanted(A, affinity=5)}) == []


def test_a_new_server_comes_with_its_real_servers_and_none_without_any() -> None:
    assert steps({}, {TCP: wanted(A), UDP: wanted()}) == [PutServer(TCP, "rr", 0, True), PutReal(TCP, A, 1, True)]


def test_a_scheduler_an_affinity_a_weight_or_a_way_that_others_changed_is_put_right() -> None:
    found = {TCP: Virtual("wlc", 0, {A: Real(0)}), MARKED: Virtual("rr", 0, {A: Real(1, 0, "Route")})}
    assert steps(found, {TCP: wanted(A, affinity=9), MARKED: wanted(A)}) == [
        PutServer(TCP, "rr", 9, False),
        PutReal(TCP, A, 1, False),
        PutReal(MARKED, A, 1, False),
    ]


def test_one_that_leaves_takes_no_new_connection_and_stays_while_it_has_any() -> None:
    found = {TCP: Virtual("rr", 0, {A: Real(1, 2), B: Real(1)})}
    assert steps(found, {TCP: wanted(B)}) == [PutReal(TCP, A, 0, False)]
    drained = {TCP: Virtual("rr", 0, {A: Real(0), B: Real(1)})}
    assert steps(drained, {TCP: wanted(B)}) == [DeleteReal(TCP, A)]


def test_connections_hold_one_that_leaves_for_a_bounded_time() -> None:
    found = {TCP: Virtual("rr", 0, {A: Real(0, 2), B: Real(1)})}
    assert steps(found, {TCP: wanted(B)}, DRAIN_BOUND - 1) == []
    assert steps(found, {TCP: wanted(B)}, DRAIN_BOUND) == [DeleteReal(TCP, A)]


def test_one_of_udp_leaves_at_once_and_takes_nobody_along() -> None:
    """All of a server's real servers change: it must not be taken for an empty one."""
    found = {UDP: Virtual("rr", 0, {A: Real(1, 5)})}
    assert steps(found, {UDP: wanted(B)}) == [PutReal(UDP, B, 1, True), DeleteReal(UDP, A)]


def test_a_server_that_nobody_answers_for_goes_when_it_is_drained() -> None:
    assert steps({TCP: Virtual("rr", 0, {A: Real(1)})}, {TCP: wanted()}) == [DeleteServer(TCP)]
    assert steps({TCP: Virtual("rr", 0, {A: Real(1, 1)})}, {TCP: wanted()}) == [PutReal(TCP, A, 0, False)]
    assert steps({TCP: Virtual("rr", 0, {A: Real(1, 1)})}, {}) == [DeleteServer(TCP)]
