"""A node and a client of the kernel's own make, for each test that asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.net.kernel import World, command


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(params=["nft", "legacy"])
def flavoured(request: pytest.FixtureRequest, world: World) -> World:
    """A node whose owner has rules already: they decide the flavour, and must stay byte for byte."""
    command(world.node, f"iptables-{request.param} -t nat -A POSTROUTING -s 203.0.113.0/24 -j RETURN")
    command(world.node, f"iptables-{request.param} -A FORWARD -s 203.0.113.9 -j DROP")
    return world
