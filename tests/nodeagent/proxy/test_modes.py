"""Which mode `auto` takes: the first that works, and why it passed over others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from nodeagent.proxy.mode import Mode, RulesUnavailable
from nodeagent.proxy.modes import KINDS, Kind, choose
from tests.net.kernel import World, inside


def kind(name: str, reason: str) -> Kind:
    async def open(_scheduler: str, _run: Path) -> Mode:
        raise NotImplementedError

    async def remove(_run: Path) -> None:
        raise NotImplementedError

    async def missing() -> str:
        return reason

    return Kind(name, open, remove, missing)


def chosen(world: World, name: str, kinds: Sequence[Kind]) -> Kind:
    """On a node that has no filters."""
    return inside(world.node, lambda: asyncio.run(choose(name, kinds)))


def test_auto_takes_the_first_that_works_and_says_why_not_others(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    kinds = (kind("best", "no such module"), kind("good", "refused"), kind("plain", ""), kind("last", ""))
    with caplog.at_level(logging.INFO):
        assert chosen(world, "auto", kinds).name == "plain"
    [record] = caplog.records
    assert record.getMessage() == "the proxy takes mode plain"
    assert vars(record)["passed over"] == ["best: no such module", "good: refused"]


def test_where_no_mode_works_each_ones_reason_is_named(world: World) -> None:
    with pytest.raises(RulesUnavailable, match=r"best: no such module; good: refused$"):
        chosen(world, "auto", (kind("best", "no such module"), kind("good", "refused")))


def test_a_mode_that_is_asked_for_is_taken_untried(world: World) -> None:
    assert chosen(world, "good", (kind("best", ""), kind("good", "refused"))).name == "good"


def test_modes_are_tried_by_speed() -> None:
    assert [each.name for each in KINDS] == ["nftables", "ipvs", "iptables"]
