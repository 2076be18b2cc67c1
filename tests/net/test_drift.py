"""Rules that others change on the real kernel are mended: as soon as nft tells of it, or by the look now and then."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from nodeagent.proxy.ipvs import kernel
from nodeagent.proxy.ipvs.plan import Front
from nodeagent.proxy.ipvs.servers import DeleteReal, DeleteServer, PutReal, PutServer, Step
from nodeagent.proxy.runner import Pace
from nodeagent.proxy.sync import ProxySync
from tests.net.kernel import NODE, World, command, inside, until
from tests.net.proxied import WEB, A, B, Node, empty, flavours, on_node, ours, proxied, saved, web
from tests.support.waiting import promised

NEVER = Pace(look=600)
"""No look by itself: what is mended has been heard of."""
PATIENCE = 10.0
PROMISE = 1.0
"""Seconds. It takes some 50 ms on a machine that does nothing else."""
RELOAD = """*nat
:PREROUTING ACCEPT [0:0]
:OTHERS - [0:0]
-A PREROUTING -j OTHERS
COMMIT
*filter
:FORWARD ACCEPT [0:0]
-A FORWARD -s 203.0.113.9 -j DROP
COMMIT
"""


Damage = str | Callable[[], object]
"""A command, or what to do, in the node's namespace."""


async def mended(node: Node, whole: list[str], what: str) -> float:
    """Wait until everything of ours is whole again; how long it took."""
    return await asyncio.to_thread(until, lambda: ours(node.world.node) == whole, what, PATIENCE)


async def breaks(node: Node, *damages: Damage, text: str = "", promise: float = PROMISE) -> None:
    """Break what the proxy has programmed, twice, and see it mended each time, and in no time."""
    async with proxied(node):
        await node.program([web()[0], empty()], [web(B)[1]])
        whole, took = ours(node.world.node), []
        for _ in range(2):
            for damage in damages:
                if isinstance(damage, str):
                    await asyncio.to_thread(command, node.world.node, damage, text)
                else:
                    await asyncio.to_thread(inside, node.world.node, damage)
            took.append(await mended(node, whole, f"mended after {damages}"))
        assert min(took) < promised(promise)
        assert await node.ask(node.world.client, NODE, 30080) == ("b", "10.77.1.1")


DAMAGE = [
    "-t nat -F",
    "-t nat -F PODPLANE-SERVICES",
    "-t nat -D PREROUTING 1",
    "-t nat -A PODPLANE-NODEPORTS -j RETURN",
    "-D FORWARD 1",
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_others_break_is_mended(flavoured: World, damage: str) -> None:
    flavour = flavours(flavoured.node)[-1]
    line = f"iptables-{flavour} {damage}"
    pace = NEVER if flavour == "nft" else Pace(look=0.1)  # legacy tells nobody
    on_node(flavoured, lambda node: breaks(node, line), spared=not damage.endswith("-F"), pace=pace)


@pytest.mark.parametrize("line", ["nft flush ruleset", "nft delete table ip nat"])
def test_a_flushed_ruleset_is_mended_without_a_look(world: World, line: str) -> None:
    on_node(world, lambda node: breaks(node, line), pace=NEVER)


@pytest.mark.parametrize(
    "line",
    [
        "flush ruleset",
        "delete table ip podplane-services",
        "flush table ip podplane-services",
        "flush chain ip podplane-services services",
        "flush chain ip podplane-services node-pick-1",
        "insert rule ip podplane-services services accept",
        "add chain ip podplane-services stranger",
        f"delete element ip podplane-services portals-1 {{ {WEB} . tcp . 80 }}",
        "delete element ip podplane-services node-backends-tcp { 30080 . 0 }",
        "add element ip podplane-services node-ports { tcp . 30099 : drop }",
        "add element ip podplane-services hairpins { 10.77.1.9 . 10.77.1.9 }",
    ],
)
def test_what_others_break_in_the_table_is_mended(world: World, line: str) -> None:
    world.mode = "nftables"
    on_node(world, lambda node: breaks(node, f"nft {line}"), pace=NEVER)


HEARD = [
    "nft flush ruleset",
    "nft delete table ip podplane-ipvs",
    "nft flush chain ip podplane-ipvs services",
    f"nft delete element ip podplane-ipvs served {{ {WEB} . tcp . 80 }}",
    f"ip address delete {WEB}/32 dev podplane-ipvs0",
    "ip link delete podplane-ipvs0",
]


@pytest.mark.parametrize("line", HEARD)
def test_what_others_break_of_ipvs_is_mended_as_soon_as_it_is_heard_of(balancing: World, line: str) -> None:
    on_node(balancing, lambda node: breaks(node, line), pace=NEVER)


def perform(*steps: Step) -> Callable[[], None]:
    def work() -> None:
        ipvs = kernel.Ipvs()
        try:
            assert ipvs.perform(steps) == {}
        finally:
            ipvs.close()

    return work


SERVED = Front("tcp", WEB, 80)
LOOKED_AT: dict[str, Step] = {
    "a virtual server is deleted": DeleteServer(SERVED),
    "a real server is deleted": DeleteReal(SERVED, (B, 8080)),
    "another scheduler chooses": PutServer(SERVED, "lc", 0, False),
    "no connection is led to it": PutReal(SERVED, (B, 8080), 0, False),
    "somebody else answers": PutReal(SERVED, ("10.9.9.9", 1), 1, True),
}


@pytest.mark.parametrize("what", LOOKED_AT)
def test_virtual_servers_that_others_change_are_mended_by_a_look(balancing: World, what: str) -> None:
    """IPVS tells nobody. A look may wait for 4 s here, whatever it costs: with the agent's pace none is left out."""
    on_node(balancing, lambda node: breaks(node, perform(LOOKED_AT[what]), promise=5))


def test_a_table_that_is_broken_while_no_agent_runs_is_mended_by_the_next(world: World) -> None:
    async def scenario(node: Node) -> None:
        wanted = [web()[0], empty()], [web(A, B)[1]]
        async with proxied(node):
            await node.program(*wanted)
        whole = ours(node.world.node)
        for line in (
            "flush chain ip podplane-services node-local",
            f"delete element ip podplane-services backends-tcp {{ {WEB} . 80 . 1 }}",
            "add element ip podplane-services node-ports { tcp . 30099 : drop }",
            "add chain ip podplane-services stranger",
        ):
            await asyncio.to_thread(command, node.world.node, f"nft {line}")
            successor = Node(node.world, ProxySync("nftables", node.world.directory, NEVER), node.pods)
            async with proxied(successor):
                assert await successor.program(*wanted) == ""
            assert ours(node.world.node) == whole

    world.mode = "nftables"
    on_node(world, scenario, pace=NEVER)


def test_a_firewall_that_loads_its_rules_anew_is_survived(world: World) -> None:
    async def scenario(node: Node) -> None:
        await breaks(node, "iptables-nft-restore", text=RELOAD)
        assert "-A PREROUTING -j OTHERS" in saved(node.world.node)
        for table in ("nat", "filter"):
            command(node.world.node, f"nft flush table ip {table}")

    on_node(world, scenario, pace=NEVER)


def test_a_deleted_chain_is_mended(world: World) -> None:
    async def scenario(node: Node) -> None:
        async with proxied(node):
            await node.program([web()[0]], [web(B)[1]])
            whole = ours(node.world.node)
            [jump] = [line for line in whole if "web:dns node port" in line]
            chain = jump.split()[-1]
            script = f"*nat\n{jump.replace('-A ', '-D ', 1)}\n-F {chain}\n-X {chain}\nCOMMIT\n"
            await asyncio.to_thread(command, node.world.node, "iptables-nft-restore --noflush", script)
            assert await mended(node, whole, "the chain is back") < promised(PROMISE)

    on_node(world, scenario, pace=NEVER)


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_somebody_who_changes_his_own_rules_all_the_time_costs_little(world: World, mode: str) -> None:
    world.mode = mode

    async def scenario(node: Node) -> None:
        async with proxied(node):
            await node.program([web()[0]], [web(B)[1]])
            written, looks = node.proxy.written, node.proxy.looks
            command(node.world.node, "nft add table ip others")
            command(node.world.node, "nft add chain ip others c")
            script = "\n".join("add rule ip others c counter" for _ in range(200)) + "\nflush chain ip others c\n"
            loop = asyncio.get_running_loop()
            started, rounds = loop.time(), 0
            while rounds <= 5 or loop.time() - started < 1.5:
                await asyncio.to_thread(command, node.world.node, "nft -f -", script)
                rounds += 1
            took = loop.time() - started
            # One for each rest of 250 ms, and the one that found nobody resting.
            assert 0 < node.proxy.looks - looks <= took / 0.25 + 1
            assert node.proxy.written == written
            command(node.world.node, "nft delete table ip others")

    on_node(world, scenario, pace=NEVER)


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_two_who_undo_each_others_work_do_not_spin(world: World, mode: str) -> None:
    world.mode = mode
    table = "nat" if mode == "iptables" else "podplane-services"

    async def fight(node: Node) -> None:
        while True:
            await asyncio.to_thread(command, node.world.node, f"nft flush table ip {table}")

    async def scenario(node: Node) -> None:
        async with proxied(node):
            await node.program([web()[0]], [web(B)[1]])
            whole = ours(node.world.node)
            looks = node.proxy.looks
            started = asyncio.get_running_loop().time()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.5):
                    await fight(node)
            took = asyncio.get_running_loop().time() - started
            # At most a few for each rest of 250 ms; without the rest it is hundreds.
            assert node.proxy.looks - looks <= 4 * (took / 0.25 + 1)
            await asyncio.to_thread(until, lambda: ours(node.world.node) == whole, "mended", PATIENCE)

    on_node(world, scenario, pace=NEVER)
