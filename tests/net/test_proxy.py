"""Services through the real kernel: a node with two pods, a client beside it, the proxy's rules between them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nodeagent.proxy.iptables import Iptables
from nodeagent.proxy.isolate import Entry, Isolator
from nodeagent.proxy.rules import Part, assemble, part
from nodeagent.proxy.runner import Pace
from nodeagent.proxy.services import ports_of
from nodeagent.proxy.sync import ProxySync
from nodeagent.sandbox.network import Network
from nodeagent.sandbox.sandboxes import Sandboxes
from nodeagent.types import SandboxRequest
from podplane.v1 import endpointslice_pb2, service_pb2
from tests.net.kernel import CLIENT, NODE, World, ask, command, inside, traces, until
from tests.nodeagent.proxy.objects import service, slice_of

PODS, CLUSTER = "10.77.1.0/24", "10.77.0.0/16"
A, B = "10.77.1.2", "10.77.1.3"
WEB, EMPTY = "10.96.0.10", "10.96.0.11"
PACE = Pace(look=0.1)


@dataclass
class Node:
    """The node under test, and what its proxy has said."""

    world: World
    proxy: ProxySync
    pods: dict[str, Path]
    said: list[tuple[int, str]] = field(default_factory=list)
    revision: int = 0

    async def program(self, services: list[service_pb2.Service], slices: list[endpointslice_pb2.EndpointSlice]) -> str:
        """Ask for these and wait until they are in the kernel; returns what the proxy says of them."""
        self.revision += 1
        self.proxy.update(services, slices, "node-1", revision=self.revision)
        async with asyncio.timeout(10):
            while not self.said or self.said[-1][0] < self.revision:
                await asyncio.sleep(0.005)
        return self.said[-1][1]

    async def ask(self, pin: Path, address: str, port: int) -> tuple[str, str]:
        return await asyncio.to_thread(ask, pin, address, port)


@contextlib.asynccontextmanager
async def proxied(node: Node) -> AsyncIterator[None]:
    """Run the node's proxy; it must not have ended by itself."""
    node.proxy.on_programmed(lambda revision, error: node.said.append((revision, error)))
    node.proxy.configure(PODS, CLUSTER)
    task = asyncio.create_task(node.proxy.run())
    try:
        yield
    finally:
        assert not task.done() or task.exception() is None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def on_node(world: World, scenario: Callable[[Node], Awaitable[None]], *, spared: bool = True) -> None:
    """Run a scenario on a node with two pods, and check that nothing of it is left.

    spared: the rules of others must be the same afterwards, byte for byte.
    """

    async def run() -> None:
        network = await Network.open(world.directory)
        await network.configure(PODS, {}, CLUSTER)
        sandboxes = Sandboxes(world.directory, network)
        proxy = ProxySync("iptables", world.directory, PACE)
        try:
            pods = {}
            for name, address in (("a", A), ("b", B)):
                made = await sandboxes.create(SandboxRequest(f"pod-{name}", 0, name, address))
                assert made.net is not None
                pods[name] = made.net
                for port in (8080, 8081):
                    world.serve(made.net, name, address, port)
                world.serve(made.net, name, address, 5353, udp=True)
            await scenario(Node(world, proxy, pods))
        finally:
            world.close_sockets()
            await proxy.cleanup()
            await sandboxes.cleanup()
            await network.cleanup()
            network.close()

    before, rules = traces(world.node, world.directory), saved(world.node)
    command(world.client, f"ip route replace 10.96.0.0/16 via {NODE}")
    inside(world.node, lambda: asyncio.run(run()))
    assert traces(world.node, world.directory) == before
    assert not spared or foreign(saved(world.node)) == foreign(rules)
    assert "PODPLANE" not in saved(world.node)


def saved(pin: Path) -> str:
    """All rules of nat and filter, of whichever flavour is in use, without counters and comments."""
    return "".join(command(pin, f"iptables-{flavour}-save") for flavour in flavours(pin))


def flavours(pin: Path) -> list[str]:
    legacy = command(pin, "cat /proc/self/net/ip_tables_names").split()
    return ["nft", "legacy"] if legacy else ["nft"]


def foreign(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("-A") and "PODPLANE" not in line]


def web(*endpoints: str, node_port: int = 30080) -> tuple[service_pb2.Service, endpointslice_pb2.EndpointSlice]:
    ports = [("http", "TCP", 80, node_port, 8080), ("admin", "TCP", 81, 0, 8081), ("dns", "UDP", 53, 30053, 5353)]
    return service("web", WEB, ports), slice_of("web", ports, endpoints)


def empty() -> service_pb2.Service:
    return service("empty", EMPTY, [("", "TCP", 80, 30081, 8080)])


@pytest.fixture(params=["nft", "legacy"])
def flavoured(request: pytest.FixtureRequest, world: World) -> World:
    """A node whose owner has rules already: they decide the flavour, and must stay byte for byte."""
    command(world.node, f"iptables-{request.param} -t nat -A POSTROUTING -s 203.0.113.0/24 -j RETURN")
    command(world.node, f"iptables-{request.param} -A FORWARD -s 203.0.113.9 -j DROP")
    return world


@pytest.mark.parametrize("bridge_filter", [0, 1])
def test_who_answers_whom(flavoured: World, bridge_filter: int) -> None:
    # Where br_netfilter is loaded, what stays on the bridge meets the rules as well.
    command(flavoured.node, f"sysctl -w net.bridge.bridge-nf-call-iptables={bridge_filter}")

    async def scenario(node: Node) -> None:
        client, a = node.world.client, node.pods["a"]
        async with proxied(node):
            assert await node.program([web()[0], empty()], [web(B)[1]]) == ""
            # From outside: any node answers, under its own address, so that the reply comes back through it.
            assert await node.ask(client, NODE, 30080) == ("b", "10.77.1.1")
            assert await node.ask(client, WEB, 80) == ("b", "10.77.1.1")
            # From the node itself, by all of its addresses.
            for address, port in ((WEB, 80), (NODE, 30080), ("127.0.0.1", 30080), ("10.77.1.1", 30080)):
                assert await node.ask(node.world.node, address, port) == ("b", "10.77.1.1")
            # From a pod: its own address is seen at a cluster address.
            assert await node.ask(a, WEB, 80) == ("b", A)
            assert await node.ask(a, WEB, 81) == ("b", A)
            assert (await node.ask(a, NODE, 30080))[0] == "b"
            # From the endpoint itself, by way of the service.
            assert await node.ask(node.pods["b"], WEB, 80) == ("b", "10.77.1.1")
            # UDP has the same port number elsewhere.
            flow = node.world.flow(a, WEB, 53)
            assert await asyncio.to_thread(flow.ask) == "b"
            outside = node.world.flow(client, NODE, 30053)
            assert await asyncio.to_thread(outside.ask) == "b"

    on_node(flavoured, scenario)


def test_without_endpoints_it_is_refused_at_once(flavoured: World) -> None:
    async def scenario(node: Node) -> None:
        async with proxied(node):
            await node.program([empty()], [])
            for pin, address, port in (
                (node.world.client, NODE, 30081),
                (node.world.client, EMPTY, 80),
                (node.world.node, EMPTY, 80),
                (node.world.node, NODE, 30081),
                (node.world.node, "127.0.0.1", 30081),
                (node.pods["a"], EMPTY, 80),
                (node.pods["a"], NODE, 30081),
            ):
                started = asyncio.get_running_loop().time()
                with pytest.raises(ConnectionRefusedError):
                    await node.ask(pin, address, port)
                assert asyncio.get_running_loop().time() - started < 0.5

    on_node(flavoured, scenario)


def test_every_endpoint_is_hit_and_then_those_that_are_left(world: World) -> None:
    async def scenario(node: Node) -> None:
        async with proxied(node):
            await node.program([web()[0]], [web(A, B)[1]])
            answers = [(await node.ask(node.world.client, NODE, 30080))[0] for _ in range(40)]
            assert min(answers.count("a"), answers.count("b")) >= 5
            await node.program([web()[0]], [web(A)[1]])
            assert {(await node.ask(node.world.client, NODE, 30080))[0] for _ in range(10)} == {"a"}
            await node.program([], [])
            with pytest.raises(ConnectionRefusedError):
                await node.ask(node.world.client, NODE, 30080)

    on_node(world, scenario)


def test_a_pod_leaves_the_cluster_under_the_nodes_address(world: World) -> None:
    async def scenario(node: Node) -> None:
        node.world.serve(node.world.client, "internet", CLIENT, 80)
        async with proxied(node):
            await node.program([], [])
            assert await node.ask(node.pods["a"], CLIENT, 80) == ("internet", NODE)

    on_node(world, scenario)


def test_localhost_stays_closed_to_others(world: World) -> None:
    def reaches_localhost() -> bool:
        private = inside(world.node, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        flow = world.flow(world.client, "127.0.0.1", 9999)
        with private:
            private.settimeout(0.3)
            private.bind(("127.0.0.1", 9999))
            with pytest.raises(TimeoutError):
                flow.ask()
            try:
                return private.recv(10) == b"?"
            except TimeoutError:
                return False

    async def scenario(node: Node) -> None:
        for line in ("127.0.0.0/8", "127.0.0.1"):
            command(world.client, f"ip route delete table local local {line} dev lo")
        command(world.client, f"ip route add 127.0.0.1 via {NODE} src {CLIENT}")
        command(world.node, "sysctl -w net.ipv4.conf.all.route_localnet=1")
        assert await asyncio.to_thread(reaches_localhost)
        command(world.node, "sysctl -w net.ipv4.conf.all.route_localnet=0")
        async with proxied(node):
            await node.program([], [])
            assert command(world.node, "sysctl -n net.ipv4.conf.all.route_localnet").strip() == "1"
            assert not await asyncio.to_thread(reaches_localhost)

    on_node(world, scenario)


def test_a_udp_flow_leaves_an_endpoint_that_is_gone(world: World) -> None:
    async def scenario(node: Node) -> None:
        async with proxied(node):
            await node.program([web()[0]], [web(A)[1]])
            flows = [
                node.world.flow(node.pods["b"], WEB, 53),
                node.world.flow(node.world.client, NODE, 30053),
                node.world.flow(node.world.node, WEB, 53),
            ]
            assert [await asyncio.to_thread(flow.ask) for flow in flows] == ["a"] * 3
            await node.program([web()[0]], [web(B)[1]])
            assert [await asyncio.to_thread(flow.ask) for flow in flows] == ["b"] * 3

    on_node(world, scenario)


async def breaks(node: Node, line: str) -> None:
    """Break what the proxy has programmed, twice, and see it mended each time."""
    async with proxied(node):
        await node.program([web()[0], empty()], [web(B)[1]])
        whole = own(saved(node.world.node))
        for _ in range(2):
            command(node.world.node, line)
            assert own(saved(node.world.node)) != whole
            await asyncio.to_thread(until, lambda: own(saved(node.world.node)) == whole, f"mended after {line}")
        assert await node.ask(node.world.client, NODE, 30080) == ("b", "10.77.1.1")


@pytest.mark.parametrize(
    "damage",
    [
        "-t nat -F",
        "-t nat -F PODPLANE-SERVICES",
        "-t nat -D PREROUTING 1",
        "-t nat -A PODPLANE-NODEPORTS -j RETURN",
        "-D FORWARD 1",
    ],
)
def test_what_others_break_is_mended(flavoured: World, damage: str) -> None:
    line = f"iptables-{flavours(flavoured.node)[-1]} {damage}"
    on_node(flavoured, lambda node: breaks(node, line), spared=not damage.endswith("-F"))


def test_a_flushed_ruleset_is_mended(world: World) -> None:
    on_node(world, lambda node: breaks(node, "nft flush ruleset"))


def own(text: str) -> list[str]:
    """Our chains and rules and the jumps to them, without counters."""
    return [line.split(" [")[0] for line in text.splitlines() if "PODPLANE" in line]


def test_only_what_differs_is_written(flavoured: World) -> None:
    async def scenario(node: Node) -> None:
        services = [service(f"s{number}", f"10.96.1.{number}", [("", "TCP", 80, 0, 8080)]) for number in range(1, 101)]
        slices = [slice_of(f"s{number}", [("", "TCP", 80, 0, 8080)], [A]) for number in range(1, 101)]
        async with proxied(node):
            await node.program(services, slices)
            assert node.proxy.lines_written > 500
            before = node.proxy.lines_written
            await node.program(services, slices)
            assert node.proxy.lines_written == before
            slices[7] = slice_of("s8", [("", "TCP", 80, 0, 8080)], [B])
            await node.program(services, slices)
            # One service chain, one endpoint chain more and one less: declared, filled, deleted, and two lines around.
            assert 0 < node.proxy.lines_written - before <= 10
            assert await node.ask(node.world.node, "10.96.1.8", 80) == ("b", "10.77.1.1")

    on_node(flavoured, scenario)


def test_a_restarted_agent_adopts_the_rules_and_no_packet_falls(flavoured: World) -> None:
    async def scenario(node: Node) -> None:
        wanted = [web()[0], empty()], [web(A, B)[1]]
        async with proxied(node):
            await node.program(*wanted)
        whole = own(saved(node.world.node))
        failures: list[OSError] = []
        stop = asyncio.Event()

        async def keep_asking() -> int:
            count = 0
            while not stop.is_set():
                try:
                    await node.ask(node.world.client, NODE, 30080)
                except OSError as error:
                    failures.append(error)
                count += 1
            return count

        asking = asyncio.create_task(keep_asking())
        successor = Node(node.world, ProxySync("iptables", node.world.directory, PACE), node.pods)
        async with proxied(successor):
            await successor.program(*wanted)
            assert successor.proxy.lines_written == 0
            await successor.program([wanted[0][0]], [web(A)[1]])
            await successor.program(*wanted)
        stop.set()
        assert await asking > 5
        assert failures == []
        assert sorted(own(saved(node.world.node))) == sorted(whole)

    on_node(flavoured, scenario)


def test_a_service_that_makes_no_sense_holds_up_no_other(world: World) -> None:
    async def scenario(node: Node) -> None:
        invalid = service("invalid", "fd00::1", [("", "TCP", 80, 0, 8080)])
        async with proxied(node):
            said = await node.program([invalid, web()[0]], [web(B)[1]])
            assert said == "default/invalid: 'fd00::1' is not an IPv4 address"
            assert await node.ask(node.world.client, NODE, 30080) == ("b", "10.77.1.1")

    on_node(world, scenario)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("-p tcp -j DNAT --to-destination 10.77.1.2:99999", "(line: -A PODPLANE-SVC-BAD"),  # iptables names the line
        ("-j REJECT --reject-with icmp-port-unreachable", "iptables-"),  # the kernel refuses it, in nat: no line
    ],
)
def test_a_service_that_iptables_refuses_holds_up_no_other(flavoured: World, rule: str, words: str) -> None:
    async def scenario(node: Node) -> None:
        iptables = await Iptables.open()
        ports = ports_of(web()[0], [web(B)[1]], "node-1")
        good = {f"default/s{number}": Entry(ports, Part()) for number in range(9)}
        good["default/web"] = Entry(ports, part(ports, CLUSTER))
        bad = Entry(ports, Part({"PODPLANE-SVC-BAD": (rule,)}, portals=("-j PODPLANE-SVC-BAD",)))
        isolator = Isolator(iptables.apply, lambda parts: assemble(parts, PODS, CLUSTER))
        standing, errors = await isolator.apply({}, {**good, "default/bad": bad})
        assert list(errors) == ["default/bad"]
        assert words in errors["default/bad"]
        assert standing == good
        assert await node.ask(node.world.client, NODE, 30080) == ("b", "10.77.1.1")

    on_node(flavoured, scenario)


def test_rules_of_the_flavour_that_is_not_in_use_any_more_go(world: World) -> None:
    async def scenario(node: Node) -> None:
        async with proxied(node):
            await node.program([web()[0]], [web(B)[1]])
        assert "PODPLANE" in command(world.node, "iptables-nft-save")
        command(world.node, "iptables-legacy -A FORWARD -s 203.0.113.9 -j DROP")
        successor = Node(node.world, ProxySync("iptables", node.world.directory, PACE), node.pods)
        async with proxied(successor):
            await successor.program([web()[0]], [web(B)[1]])
            assert "PODPLANE" not in command(world.node, "iptables-nft-save")
            assert "PODPLANE" in command(world.node, "iptables-legacy-save")
            assert await node.ask(node.world.client, NODE, 30080) == ("b", "10.77.1.1")
        command(world.node, "iptables-legacy -D FORWARD -s 203.0.113.9 -j DROP")

    on_node(world, scenario)
