"""The DNS server of a node, asked by its pods, by the node, and by those whom it is nothing to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rcode
import pytest

from nodeagent.dns import server as server_module
from nodeagent.dns.server import DnsServer
from nodeagent.metrics import Metrics
from nodeagent.paths import Paths
from nodeagent.pods.objects import Objects
from nodeagent.sandbox.network import Network
from nodeagent.sandbox.sandboxes import Sandboxes
from nodeagent.types import SandboxRequest
from podplane.v1.session_pb2 import ObjectChange
from tests.net.kernel import CLIENT, NODE, World, command, inside, traces
from tests.nodeagent.dns.world import Outside, says, service, slice_of

PODS, CLUSTER, SERVICES = "10.77.1.0/24", "10.77.0.0/16", "10.96.0.0/16"
GATEWAY, A = "10.77.1.1", "10.77.1.2"
WEB, DB = "web.default.svc.cluster.local.", "db.default.svc.cluster.local."


class Node:
    """The node under test: its server, what it knows, and a pod."""

    def __init__(self, server: DnsServer, objects: Objects, pod: Path, resolv: Path, metrics: Metrics) -> None:
        self.server, self.objects, self.pod, self.resolv, self.metrics = server, objects, pod, resolv, metrics

    async def ask(self, pin: Path, name: str, *, tcp: bool = False, timeout: float = 5.0) -> dns.message.Message:
        query = dns.message.make_query(name, "A")
        how = dns.query.tcp if tcp else dns.query.udp
        return await asyncio.to_thread(inside, pin, lambda: how(query, GATEWAY, timeout=timeout))

    async def serves(self) -> None:
        async with asyncio.timeout(5):
            while not self.server.listening:
                await asyncio.sleep(0.01)


def addresses(answer: dns.message.Message) -> set[str]:
    return {str(data) for each in answer.answer for data in each}


def on_node(world: World, scenario: Callable[[Node], Awaitable[None]]) -> None:
    """Run a scenario on a node with one pod and a DNS server, and check that nothing of it is left."""

    async def run() -> None:
        paths = Paths(world.directory / "state", world.directory / "run")
        paths.make()
        objects, metrics, resolv = Objects(paths), Metrics(), world.directory / "resolv.conf"
        resolv.write_text(f"nameserver {GATEWAY}\n")
        network = await Network.open(world.directory)
        sandboxes = Sandboxes(world.directory, network)
        server = DnsServer(objects, metrics, "cluster.local", resolv)
        task = asyncio.create_task(server.run())
        try:
            server.configure(GATEWAY, CLUSTER, SERVICES)
            await network.configure(PODS, {}, CLUSTER)
            made = await sandboxes.create(SandboxRequest("pod-a", 0, "a", A))
            assert made.net is not None
            objects.apply(ObjectChange(type="ADDED", service=service("web", "10.96.0.10", ("http", "TCP", 80))))
            await scenario(Node(server, objects, made.net, resolv, metrics))
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await sandboxes.cleanup()
            await network.cleanup()
            network.close()

    before_ = traces(world.node, world.directory)["links"]
    inside(world.node, lambda: asyncio.run(run()))
    assert traces(world.node, world.directory)["links"] == before_


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_pods_and_the_node_are_answered_and_nobody_else(world: World, tcp: bool) -> None:
    async def scenario(node: Node) -> None:
        await node.serves()
        for pin in (node.pod, world.node):
            assert addresses(await node.ask(pin, WEB, tcp=tcp)) == {"10.96.0.10"}
        assert (await node.ask(node.pod, "nothing." + WEB, tcp=tcp)).rcode() == dns.rcode.NXDOMAIN
        with pytest.raises((OSError, EOFError, dns.exception.Timeout)):
            await node.ask(world.client, WEB, tcp=tcp, timeout=0.5)

    command(world.client, f"ip route add {GATEWAY} via {NODE}")
    on_node(world, scenario)


def test_answers_follow_the_endpoints_and_do_not_need_a_control_plane(world: World) -> None:
    async def scenario(node: Node) -> None:
        await node.serves()
        headless = service("db", "None", ("http", "TCP", 80))
        node.objects.apply(ObjectChange(type="ADDED", service=headless))
        assert (await node.ask(node.pod, DB)).rcode() == dns.rcode.NXDOMAIN
        item = slice_of("db", ("10.77.1.2", "db-0", True), ("10.77.2.3", "", False))
        item.metadata.labels["service.kubernetes.io/headless"] = ""
        node.objects.apply(ObjectChange(type="ADDED", endpointSlice=item))
        assert addresses(await node.ask(node.pod, DB)) == {"10.77.1.2"}
        # The next agent knows it from the disk.
        paths = Paths(world.directory / "state", world.directory / "run")
        objects = Objects(paths)
        objects.load()
        successor = DnsServer(objects, Metrics(), "cluster.local", node.resolv)
        assert successor.zone.answer(tuple(DB[:-1].split(".")), "A") == node.server.zone.answer(
            tuple(DB[:-1].split(".")), "A"
        )
        node.objects.apply(ObjectChange(type="DELETED", endpointSlice=item))
        assert (await node.ask(node.pod, DB)).rcode() == dns.rcode.NXDOMAIN
        gone = Objects(paths)
        gone.load()
        assert not gone.endpoint_slices

    on_node(world, scenario)


def test_a_node_whose_only_server_is_this_one_asks_nobody(world: World) -> None:
    async def scenario(node: Node) -> None:
        await node.serves()
        assert (await node.ask(node.pod, "www.example.com.")).rcode() == dns.rcode.REFUSED
        node.resolv.write_text("nameserver 198.18.0.2 # nobody is there\n")
        assert (await node.ask(node.pod, "www.example.com.", timeout=10)).rcode() == dns.rcode.SERVFAIL
        shown = node.metrics.registry.text()
        assert 'podplane_agent_dns_queries_total{source="nobody",rcode="SERVFAIL"} 1' in shown

    on_node(world, scenario)


def test_other_names_are_the_nodes_servers_to_say_and_are_kept_when_these_are_gone(world: World) -> None:
    async def scenario(node: Node) -> None:
        await node.serves()
        node.resolv.write_text(f"nameserver {CLIENT}\n")
        assert addresses(await node.ask(node.pod, "www.example.com.")) == {"203.0.113.7"}
        assert outside.asked == ["www.example.com. IN A"] * 2  # of the first answer, by UDP, some was cut off
        outside.close()
        for tcp in (False, True):
            assert addresses(await node.ask(node.pod, "WWW.example.com.", tcp=tcp)) == {"203.0.113.7"}
        assert (await node.ask(node.pod, "ftp.example.com.", timeout=10)).rcode() == dns.rcode.SERVFAIL

    said = says("www.example.com. 60 IN A 203.0.113.7", cut=True)
    outside = inside(world.client, lambda: Outside(said, (CLIENT, 53)))
    try:
        on_node(world, scenario)
    finally:
        outside.close()


def test_a_port_that_somebody_has_is_the_problem_until_he_goes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "RETRY", 0.05)

    async def scenario(node: Node) -> None:
        async with asyncio.timeout(5):
            while node.server.problem is None:
                await asyncio.sleep(0.01)
        assert "cannot listen on 10.77.1.1:53: Address already in use" in node.server.problem
        other.close()
        await node.serves()
        assert addresses(await node.ask(node.pod, WEB)) == {"10.96.0.10"}

    other = inside(world.node, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    inside(world.node, lambda: other.bind(("0.0.0.0", 53)))
    on_node(world, scenario)


def test_the_server_moves_with_the_nodes_range(world: World) -> None:
    async def scenario(node: Node) -> None:
        await node.serves()
        command(world.node, "ip address add 10.77.9.1/32 dev lo")
        node.server.configure("10.77.9.1", CLUSTER, SERVICES)
        query = dns.message.make_query(WEB, "A")

        def moved() -> bool:
            try:
                return bool(inside(node.pod, lambda: dns.query.udp(query, "10.77.9.1", timeout=0.2)).answer)
            except (TimeoutError, OSError, dns.exception.Timeout):
                return False

        async with asyncio.timeout(5):
            while not await asyncio.to_thread(moved):
                pass
        with pytest.raises((OSError, dns.exception.Timeout)):
            await node.ask(node.pod, WEB, timeout=0.3)

    on_node(world, scenario)
