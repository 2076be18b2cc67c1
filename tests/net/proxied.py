"""A node with two pods and a running proxy, for tests on the real kernel: what they ask of it and look at."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from nodeagent.proxy.ipvs import servers
from nodeagent.proxy.ipvs import table as ipvs_table
from nodeagent.proxy.ipvs.plan import DEVICE
from nodeagent.proxy.mode import Ranges
from nodeagent.proxy.nftables.table import TABLE
from nodeagent.proxy.runner import Pace
from nodeagent.proxy.sync import Progress, ProxySync
from nodeagent.sandbox.network import Network
from nodeagent.sandbox.sandboxes import Sandboxes
from nodeagent.types import SandboxRequest
from podplane.v1 import endpointslice_pb2, service_pb2
from tests.net.kernel import CLIENT, NODE, World, ask, assert_unchanged, command, inside, ip, traces
from tests.nodeagent.proxy.objects import Port, by_key, service, slice_of
from tests.support.waiting import patient

PODS, CLUSTER = "10.77.1.0/24", "10.77.0.0/16"
RANGES = Ranges(PODS, CLUSTER)
A, B = "10.77.1.2", "10.77.1.3"
REMOTE_PODS, R = "10.77.2.0/24", "10.77.2.9"
"""The client's machine plays another node as well, with one pod."""
WEB, EMPTY = "10.96.0.10", "10.96.0.11"
BRIDGE = "10.77.1.1"
PORTS: list[Port] = [("web", "TCP", 80, 30080, 8080), ("dns", "UDP", 80, 30080, 5353)]
Change = Callable[[service_pb2.ServiceSpec], None]
PACE = Pace(look=0.1)
TABLES = {TABLE, ipvs_table.TABLE}


@dataclass
class Node:
    """The node under test, and what its proxy has said."""

    world: World
    proxy: ProxySync
    pods: dict[str, Path]
    said: list[Progress] = field(default_factory=list)
    revision: int = 0

    async def program(self, services: list[service_pb2.Service], slices: list[endpointslice_pb2.EndpointSlice]) -> str:
        """Ask for these and wait until they are in the kernel; returns what the proxy says of them."""
        self.revision += 1
        self.proxy.update(*by_key(services, slices), "node-1", revision=self.revision)
        async with asyncio.timeout(patient(10)):
            while not self.said or self.said[-1].revision < self.revision:
                await asyncio.sleep(0.005)
        return self.said[-1].error

    async def ask(self, pin: Path, address: str, port: int, source: str = "", timeout: float = 2.0) -> tuple[str, str]:
        return await asyncio.to_thread(ask, pin, address, port, timeout, source)

    async def answers(self, pin: Path, address: str, port: int, source: str = "", times: int = 12) -> set[str]:
        """Who answers, over some connections."""
        return {(await self.ask(pin, address, port, source))[0] for _ in range(times)}


@contextlib.asynccontextmanager
async def asked_meanwhile(node: Node, *ways: tuple[Path, str, int]) -> AsyncIterator[list[str]]:
    """Ask all the time, one way after the other; yields who has answered, all in the end. Raises what failed."""
    answered: list[str] = []
    stop = asyncio.Event()

    async def keep_asking() -> None:
        while not stop.is_set():
            for way in ways:
                answered.append((await node.ask(*way))[0])

    asking = asyncio.create_task(keep_asking())
    try:
        yield answered
    finally:
        stop.set()
        await asking


@contextlib.asynccontextmanager
async def proxied(node: Node) -> AsyncIterator[None]:
    """Run the node's proxy; it must not have ended by itself."""
    node.proxy.on_programmed(node.said.append)
    node.proxy.configure(PODS, CLUSTER)
    task = asyncio.create_task(node.proxy.run())
    try:
        yield
    finally:
        assert not task.done() or task.exception() is None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def on_node(
    world: World, scenario: Callable[[Node], Awaitable[None]], *, spared: bool = True, pace: Pace = PACE
) -> None:
    """Run a scenario on a node with two pods, and check that nothing of it is left.

    spared: the rules of others must be the same afterwards, byte for byte.
    """

    async def run() -> None:
        network = await Network.open(world.directory)
        await network.configure(PODS, {REMOTE_PODS: CLIENT}, CLUSTER)
        sandboxes = Sandboxes(world.directory, network)
        proxy = ProxySync(world.mode, world.directory, pace)
        try:
            pods = {}
            for name, address in (("a", A), ("b", B)):
                made = await sandboxes.create(SandboxRequest(f"pod-{name}", 0, name, address))
                assert made.net is not None
                pods[name] = made.net
                for port in (8080, 8081):
                    world.serve(made.net, name, address, port)
                world.serve(made.net, name, address, 5353, udp=True)
            for port in (8080, 8081):
                world.serve(world.client, "r", R, port)
            world.serve(world.client, "r", R, 5353, udp=True)
            await scenario(Node(world, proxy, pods))
        finally:
            world.close_sockets()
            await proxy.cleanup()
            await sandboxes.cleanup()
            await network.cleanup()
            network.close()

    before, rules = traces(world.node, world.directory), saved(world.node)
    reached = (f"route replace {network} via {NODE}" for network in ("10.96.0.0/16", PODS))
    ip(world.client, *reached, f"address add {R}/32 dev lo")
    inside(world.node, lambda: asyncio.run(run()))
    assert_unchanged(world.node, world.directory, before)
    left = saved(world.node)
    assert not spared or foreign(left) == foreign(rules)
    assert "PODPLANE" not in left
    assert virtual_servers(world.node) == []


def saved(pin: Path) -> str:
    """All rules of nat and filter, of whichever flavour is in use, without counters and comments."""
    return "".join(command(pin, f"iptables-{flavour}-save") for flavour in flavours(pin))


def flavours(pin: Path) -> list[str]:
    in_use = Path("/proc/thread-self/net/ip_tables_names")
    legacy = inside(pin, lambda: in_use.exists() and in_use.read_text().split())
    return ["nft", "legacy"] if legacy else ["nft"]


def foreign(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("-A") and "PODPLANE" not in line]


def web(*endpoints: str, node_port: int = 30080) -> tuple[service_pb2.Service, endpointslice_pb2.EndpointSlice]:
    ports = [("http", "TCP", 80, node_port, 8080), ("admin", "TCP", 81, 0, 8081), ("dns", "UDP", 53, 30053, 5353)]
    return service("web", WEB, ports), slice_of("web", ports, endpoints)


def empty() -> service_pb2.Service:
    return service("empty", EMPTY, [("", "TCP", 80, 30081, 8080)])


def ours(pin: Path) -> list[str]:
    """Everything of ours, of whichever mode: rules and jumps, chains, elements, virtual servers; in one order.

    Without what changes by itself: counters, connections, clients that stay with their endpoints.
    """
    lines = [line.split(" [")[0] for line in saved(pin).splitlines() if "PODPLANE" in line]
    for item in json.loads(command(pin, "nft -j list ruleset"))["nftables"]:
        [(kind, found)] = item.items()
        if kind == "metainfo" or not TABLES & {found.get("table"), found.get("name")}:
            continue
        elements = found.pop("elem", [])
        found.pop("handle")
        lines.append(f"{kind} {json.dumps(found)}")
        if "dynamic" not in found.get("flags", ()):
            lines += [f"{found['name']} {json.dumps(element)}" for element in elements]
    return sorted([*lines, *virtual_servers(pin), *(f"address {item}" for item in service_addresses(pin))])


def modes_of(world: World) -> set[str]:
    """The modes that something in the kernel is of."""
    found = {"iptables"} if "PODPLANE" in saved(world.node) else set()
    tables = command(world.node, "nft list tables")
    found |= {"nftables"} if "podplane-services" in tables else set()
    balanced = virtual_servers(world.node) or service_addresses(world.node)
    return found | ({"ipvs"} if "podplane-ipvs" in tables or balanced else set())


def virtual_servers(pin: Path) -> list[str]:
    """Those of the ipvs mode and of anybody else, with the weights of their real servers."""
    made = []
    for front, server in standing(pin).items():
        made.append(f"{front} {server.scheduler} {server.affinity}")
        made += [f"{front} -> {target} {real.weight} {real.forwarding}" for target, real in server.reals.items()]
    return made


def standing(pin: Path) -> servers.Standing:
    """The kernel's virtual servers; affinity in its ticks."""
    table = Path(servers.PATH)
    return servers.parse(inside(pin, lambda: table.read_text() if table.exists() else ""), 1)


def service_addresses(pin: Path) -> list[str]:
    """Those of the ipvs mode's device."""
    lines = [line.split() for line in command(pin, "ip -o -4 address").splitlines()]
    return [words[3] for words in lines if words[1] == DEVICE]


def placed(
    *ready: str, leaving: tuple[str, ...] = (), unready: tuple[str, ...] = ()
) -> endpointslice_pb2.EndpointSlice:
    """The slice of WEB; r is on the other node, whose own address is the client's."""
    made = slice_of("web", PORTS, ready, leaving, unready)
    for endpoint in made.endpoints:
        endpoint.nodeName = "node-2" if endpoint.addresses[0] in (R, CLIENT) else "node-1"
    return made


def wanted(change: Change | None = None) -> service_pb2.Service:
    made = service("web", WEB, PORTS)
    if change is not None:
        change(made.spec)
    return made


async def is_silent(node: Node, where: str, address: str, port: int) -> bool:
    """Whether nothing comes back: neither an answer nor a refusal."""
    pin = {"client": node.world.client, "node": node.world.node, **node.pods}[where]
    try:
        await node.ask(pin, address, port, timeout=0.3)
    except TimeoutError:
        return True
    return False


def scenario_of(body: Callable[[Node], Awaitable[None]]) -> Callable[[Node], Awaitable[None]]:
    async def scenario(node: Node) -> None:
        async with proxied(node):
            await body(node)

    return scenario
