"""A node whose proxy mode is changed, and the removal of every mode's rules."""

from __future__ import annotations

import asyncio

import pytest

from nodeagent.proxy.ipvs import ipvs
from nodeagent.proxy.mode import Wanted
from nodeagent.proxy.services import ports_of
from nodeagent.proxy.sync import ProxySync
from tests.net.conftest import missing
from tests.net.kernel import NODE, World, command, inside
from tests.net.proxied import (
    PACE,
    RANGES,
    WEB,
    A,
    B,
    Node,
    asked_meanwhile,
    empty,
    modes_of,
    on_node,
    ours,
    proxied,
    virtual_servers,
    web,
)

WANTED = [web()[0], empty()], [web(A, B)[1]]


PAIRS = [("iptables", "nftables"), ("nftables", "iptables"), ("ipvs", "nftables"), ("iptables", "ipvs")]
"""Each there, back and there."""


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_node_changes_its_mode_without_losing_a_connection(world: World, first: str, second: str) -> None:
    for mode in (first, second):
        if reason := missing(mode):
            pytest.skip(f"mode {mode} does not work here: {reason}")

    async def scenario(node: Node) -> None:
        async with proxied(node):
            await node.program(*WANTED)
        ways = (node.world.client, NODE, 30080), (node.pods["a"], WEB, 80)
        async with asked_meanwhile(node, *ways) as answered:
            for mode in (second, first, second):
                successor = Node(node.world, ProxySync(mode, node.world.directory, PACE), node.pods)
                async with proxied(successor):
                    assert await successor.program(*WANTED) == ""
                    assert successor.proxy.mode == mode
                assert modes_of(node.world) == {mode}
        assert len(answered) > 20

    world.mode = first
    on_node(world, scenario)


def test_what_is_left_of_ipvs_goes_whatever_of_it_somebody_has_deleted(balancing: World) -> None:
    ports = ports_of(web()[0], [web(A, B)[1]], "node-1")
    ports = tuple(port._replace(external_local=True, local_endpoints=port.endpoints) for port in ports)

    async def program() -> None:
        mode = await ipvs.open("rr", balancing.directory)
        assert await mode.apply(Wanted(RANGES, {"default/web": ports})) == {}
        await mode.close()

    before = command(balancing.node, "sysctl net.ipv4.vs")
    for damage in ("ip link delete podplane-ipvs0", "nft delete table ip podplane-ipvs"):
        inside(balancing.node, lambda: asyncio.run(program()))
        assert len(virtual_servers(balancing.node)) == 3 * 3 + 2 * 3
        assert command(balancing.node, "sysctl net.ipv4.vs") != before
        command(balancing.node, damage)
        inside(balancing.node, lambda: asyncio.run(ipvs.remove(balancing.directory)))
        assert ours(balancing.node) == []
        assert command(balancing.node, "sysctl net.ipv4.vs") == before
        assert not list(balancing.directory.glob("ipvs*"))


def test_auto_takes_the_fastest_mode_and_says_which(world: World) -> None:
    async def scenario(node: Node) -> None:
        async with proxied(node):
            assert await node.program(*WANTED) == ""
            assert node.proxy.mode == "nftables"
            assert "podplane-services" in command(node.world.node, "nft list tables")

    world.mode = "auto"
    on_node(world, scenario)
