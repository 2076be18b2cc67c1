"""A node whose proxy mode is changed, and the removal of every mode's rules."""

from __future__ import annotations

import asyncio

import pytest

from nodeagent.proxy.sync import ProxySync
from tests.net.kernel import NODE, World, command
from tests.net.proxied import PACE, WEB, A, B, Node, empty, on_node, ours, proxied, web

WANTED = [web()[0], empty()], [web(A, B)[1]]


@pytest.mark.parametrize(("first", "second"), [("iptables", "nftables"), ("nftables", "iptables")])
def test_a_node_changes_its_mode_without_losing_a_connection(world: World, first: str, second: str) -> None:
    async def scenario(node: Node) -> None:
        async with proxied(node):
            await node.program(*WANTED)
        failures: list[OSError] = []
        stop = asyncio.Event()

        async def keep_asking() -> int:
            count = 0
            while not stop.is_set():
                for pin, address, port in ((node.world.client, NODE, 30080), (node.pods["a"], WEB, 80)):
                    try:
                        await node.ask(pin, address, port)
                    except OSError as error:
                        failures.append(error)
                    count += 1
            return count

        asking = asyncio.create_task(keep_asking())
        for mode in (second, first, second):
            successor = Node(node.world, ProxySync(mode, node.world.directory, PACE), node.pods)
            async with proxied(successor):
                assert await successor.program(*WANTED) == ""
                assert successor.proxy.mode == mode
            present = {"iptables" if "PODPLANE" in line else "nftables" for line in ours(node.world.node)}
            assert present == {mode}
        stop.set()
        assert await asking > 20
        assert failures == []

    world.mode = first
    on_node(world, scenario)


def test_auto_takes_the_fastest_mode_and_says_which(world: World) -> None:
    async def scenario(node: Node) -> None:
        async with proxied(node):
            assert await node.program(*WANTED) == ""
            assert node.proxy.mode == "nftables"
            assert "podplane-services" in command(node.world.node, "nft list tables")

    world.mode = "auto"
    on_node(world, scenario)
