"""What the rules of the pod network say, for each thing that can be asked of them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from nodeagent.config import parse
from nodeagent.sandbox.guard import Closed, removal, rules

PODS, CLUSTER = IPv4Network("10.77.1.0/29"), IPv4Network("10.77.0.0/16")
NODES = [IPv4Address("198.18.0.2"), IPv4Address("198.18.0.1")]


def test_each_address_that_a_pod_can_have_is_bound_to_its_port_and_mac_and_no_other() -> None:
    lines = [line for line in rules(PODS, CLUSTER, NODES, Closed()).splitlines() if line.startswith("meta protocol")]
    assert [line.split(" iifgroup")[0] for line in lines] == ["meta protocol ip", "meta protocol arp"]
    for line in lines:
        owners = line.split("{ ")[1].split(" }")[0].split(", ")
        # Neither the network, nor the gateway, nor the broadcast address.
        assert owners == [
            f"{0x0A4D0100 + number} . 0a:58:0a:4d:01:0{number} . 10.77.1.{number}" for number in range(2, 7)
        ]


def test_a_range_without_room_for_pods_lets_nothing_through() -> None:
    text = rules(IPv4Network("10.77.1.0/31"), CLUSTER, NODES, Closed())
    assert "meta protocol" not in text
    assert text.splitlines().count("drop") == 1


@pytest.mark.parametrize(
    ("closed", "lines"),
    [
        (Closed(), ["ip daddr 169.254.169.254 reject"]),
        (Closed(metadata=False), []),
        (
            Closed(False, ((None, 9100),)),
            [
                "fib daddr type local tcp dport 9100 reject with tcp reset",
                "ip daddr { 198.18.0.1, 198.18.0.2 } tcp dport { 9100 } reject with tcp reset",
            ],
        ),
        (
            Closed(False, ((IPv4Address("198.18.0.1"), 9100),)),
            [
                "ip daddr 198.18.0.1 tcp dport 9100 reject with tcp reset",
                "ip daddr { 198.18.0.1, 198.18.0.2 } tcp dport { 9100 } reject with tcp reset",
            ],
        ),
    ],
)
def test_what_is_closed_and_nothing_else_is_refused(closed: Closed, lines: list[str]) -> None:
    text = rules(PODS, CLUSTER, NODES, closed)
    assert [line for line in text.splitlines() if "reject" in line] == lines


def test_both_tables_are_replaced_whole_and_taken_away_whole() -> None:
    text = rules(PODS, CLUSTER, NODES, Closed())
    for family in ("bridge", "ip"):
        assert f"table {family} podplane\ndelete table {family} podplane\n" in text
        assert f"table {family} podplane\ndelete table {family} podplane\n" in removal()


@pytest.mark.parametrize(
    ("argv", "closed"),
    [
        ([], Closed()),
        (["--metrics-address", ":9100"], Closed()),
        (["--metrics-address", "[::]:9100"], Closed()),
        (["--metrics-address", "0.0.0.0:9100"], Closed(True, ((None, 9100),))),
        (["--metrics-address", "198.18.0.1:9100"], Closed(True, ((IPv4Address("198.18.0.1"), 9100),))),
        (["--metrics-address", "0.0.0.0:9100", "--pod-access", "agent"], Closed()),
        (["--metrics-address", "0.0.0.0:9100", "--pod-access", "metadata,agent"], Closed(metadata=False)),
    ],
)
def test_flags_say_what_is_closed(argv: list[str], closed: Closed) -> None:
    assert parse(["run", *argv], {}).closed == closed


def test_what_cannot_be_opened_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["run", "--pod-access", "metadata,everything"], {})
    assert "'everything' is not one of metadata, agent" in capsys.readouterr().err
