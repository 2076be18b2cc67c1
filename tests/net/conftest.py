"""A node and a client of the kernel's own make, for each test that asks for them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.proxy.modes import KINDS
from tests.net.kernel import World, command, in_thread


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    try:
        yield made
    finally:
        made.close()


@functools.cache
def missing(mode: str) -> str:
    """Why a mode does not work on this machine's kernel; "" where it does. Found once: it takes a while in a VM."""
    [kind] = [kind for kind in KINDS if kind.name == mode]
    return in_thread(lambda: asyncio.run(kind.missing()))


@pytest.fixture(params=["iptables-nft", "iptables-legacy", *(kind.name for kind in KINDS if kind.name != "iptables")])
def moded(request: pytest.FixtureRequest, world: World) -> World:
    """A node in each proxy mode, whose owner has rules of his own, which must stay byte for byte."""
    mode, _, flavour = request.param.partition("-")
    if reason := missing(mode):
        pytest.skip(f"mode {mode} does not work here: {reason}")
    world.mode = mode
    iptables = f"iptables-{flavour or 'nft'}"
    command(world.node, f"{iptables} -t nat -A POSTROUTING -s 203.0.113.0/24 -j RETURN")
    command(world.node, f"{iptables} -A FORWARD -s 203.0.113.9 -j DROP")
    return world


@pytest.fixture(params=["ipvs"])
def balancing(request: pytest.FixtureRequest, world: World) -> World:
    """A node in mode ipvs."""
    if reason := missing("ipvs"):
        pytest.skip(f"mode ipvs does not work here: {reason}")
    world.mode = "ipvs"
    return world


@pytest.fixture(params=["nft", "legacy"])
def flavoured(request: pytest.FixtureRequest, world: World) -> World:
    """A node whose owner has rules already: they decide the flavour, and must stay byte for byte."""
    command(world.node, f"iptables-{request.param} -t nat -A POSTROUTING -s 203.0.113.0/24 -j RETURN")
    command(world.node, f"iptables-{request.param} -A FORWARD -s 203.0.113.9 -j DROP")
    return world
