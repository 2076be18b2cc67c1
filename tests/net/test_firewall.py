"""A node whose iptables drop what is forwarded, as Docker has it: pods and services work, and what is lost is told."""

from __future__ import annotations

import asyncio

import pytest

from nodeagent.proxy.obstacles import closed, closed_by_iptables
from tests.net.kernel import CLIENT, NODE, World, command, inside, until
from tests.net.proxied import WEB, A, B, Node, R, flavours, modes_of, on_node, proxied, web


@pytest.mark.parametrize("flavour", ["nft", "legacy"])
def test_pods_and_services_pass_a_policy_that_drops_what_is_forwarded(world: World, flavour: str) -> None:
    async def scenario(node: Node) -> None:
        world.serve(world.client, "outside", CLIENT, 7000)
        async with proxied(node):
            assert await node.program([web()[0]], [web(A, R)[1]]) == ""
            assert node.proxy.mode == "iptables"
            assert await node.ask(node.pods["b"], CLIENT, 7000) == ("outside", NODE)
            assert await node.ask(node.pods["b"], A, 8080) == ("a", "10.77.1.3")
            assert await node.ask(node.pods["b"], R, 8080) == ("r", "10.77.1.3")
            assert await node.ask(world.client, A, 8080, source=R) == ("a", R)
            for pin, address, port in ((world.client, NODE, 30080), (node.pods["b"], WEB, 80), (world.node, WEB, 80)):
                assert await node.answers(pin, address, port) == {"a", "r"}
            found = await node.proxy.inspect("default/web")
            assert (list(found.obstacles), found.missingCount) == ([], 0)

    # Nothing else of iptables is there: the policy alone says which flavour the node has.
    command(world.node, f"iptables-{flavour} -P FORWARD DROP")
    world.mode = "auto"
    on_node(world, scenario)
    assert len(inside(world.node, closed)) == 1


@pytest.mark.parametrize("flavour", ["nft", "legacy"])
def test_a_policy_that_comes_later_changes_the_mode(world: World, flavour: str) -> None:
    async def scenario(node: Node) -> None:
        async with proxied(node):
            await node.program([web()[0]], [web(A, B)[1]])
            assert node.proxy.mode == "nftables"
            command(world.node, f"iptables-{flavour} -P FORWARD DROP")
            await asyncio.to_thread(until, lambda: modes_of(world) == {"iptables"}, "the other mode's rules alone")
            assert await node.answers(world.client, NODE, 30080) == {"a", "b"}
            assert await node.program([web()[0]], [web(A)[1]]) == ""
            assert (node.proxy.mode, await node.answers(world.client, NODE, 30080)) == ("iptables", {"a"})

    world.mode = "auto"
    on_node(world, scenario)


def test_a_policy_that_drops_what_is_forwarded_is_told_unless_a_rule_of_ours_is_before_it(moded: World) -> None:
    own = f"iptables {flavours(moded.node)[-1]}"
    tables = {"nft": "table ip filter", "legacy": "table filter of iptables-legacy"}

    async def scenario(node: Node) -> None:
        async with proxied(node):
            await node.program([web()[0]], [web(A)[1]])
            for flavour, table in tables.items():
                command(moded.node, f"iptables-{flavour} -P FORWARD DROP")
                found = await node.proxy.inspect("default/web")
                passed = f"{moded.mode} {flavour}" == own
                assert list(found.obstacles) == ([] if passed else [f"{table}, chain FORWARD: policy drop"])
                command(moded.node, f"iptables-{flavour} -P FORWARD ACCEPT")
            # As /etc/nftables.conf may have it: in iptables' table, but no chain that its rules are in.
            native = "{ type filter hook forward priority 5 ; policy drop ; }"
            command(moded.node, f"nft add chain ip filter forward {native}")
            found = await node.proxy.inspect("default/web")
            assert list(found.obstacles) == ["table ip filter, chain forward: policy drop"]
            assert closed_by_iptables() == ""
            command(moded.node, "nft delete chain ip filter forward")

    on_node(moded, scenario)
