"""What leads to pods from outside, beside node ports, in every proxy mode: load balancers and host ports."""

from __future__ import annotations

import asyncio
import http.client
import json

import pytest

from nodeagent.proxy.services import Endpoint, HostPort
from podplane.v1 import service_pb2
from tests.net.kernel import CLIENT, NODE, World, command, inside, until
from tests.net.proxied import (
    BRIDGE,
    A,
    B,
    Node,
    R,
    empty,
    is_silent,
    on_node,
    ours,
    placed,
    scenario_of,
    wanted,
    web,
)


def test_a_load_balancers_address_leads_here(moded: World) -> None:
    def balanced(policy: str) -> service_pb2.Service:
        made = wanted()
        made.spec.type, made.spec.externalTrafficPolicy = "LoadBalancer", policy
        made.status.loadBalancer.ingress.add(ip="198.51.100.7", ipMode="VIP")
        made.status.loadBalancer.ingress.add(ip="198.51.100.8", ipMode="Proxy")
        return made

    async def body(node: Node) -> None:
        command(node.world.client, f"ip route add 198.51.100.0/24 via {NODE}")
        await node.program([balanced("Cluster")], [placed(B)])
        assert await node.ask(node.world.client, "198.51.100.7", 80) == ("b", BRIDGE)
        assert (await node.ask(node.pods["a"], "198.51.100.7", 80))[0] == "b"
        await node.program([balanced("Local")], [placed(B, R)])
        assert await node.ask(node.world.client, "198.51.100.7", 80) == ("b", CLIENT)
        assert await node.answers(node.world.client, "198.51.100.7", 80) == {"b"}
        await node.program([balanced("Local")], [placed(R)])
        assert await is_silent(node, "client", "198.51.100.7", 80)
        await node.program([balanced("Cluster")], [placed()])
        with pytest.raises(ConnectionRefusedError):
            await node.ask(node.world.client, "198.51.100.7", 80)

    on_node(moded, scenario_of(body))


def test_a_load_balancer_at_the_nodes_own_address_leaves_the_node_its_own(moded: World) -> None:
    def balanced(*addresses: str) -> service_pb2.Service:
        made = wanted()
        made.spec.type = "LoadBalancer"
        for address in addresses:
            made.status.loadBalancer.ingress.add(ip=address)
        return made

    async def stays_open(node: Node, address: str) -> None:
        client = node.world.client
        assert (await node.ask(client, address, 80))[0] == "b"
        assert (await node.ask(client, address, 30080))[0] == "b"
        assert (await node.ask(client, address, 8088))[0] == "b"
        assert await node.ask(client, address, 9101) == ("own", CLIENT)

    async def body(node: Node) -> None:
        node.world.serve(node.world.node, "own", "0.0.0.0", 9101)
        command(node.world.client, f"ip route add 198.51.100.0/24 via {NODE}")
        node.proxy.set_host_ports(host_ports())
        assert await node.program([balanced(NODE, "198.51.100.7")], [placed(B)]) == ""
        await stays_open(node, NODE)
        before = await asyncio.to_thread(ours, node.world.node)
        # One that the node gets later is its own from then on, and a load balancer's alone when it has gone.
        command(node.world.node, "ip address add 198.51.100.7/32 dev up0")
        if node.world.mode == "ipvs":
            gone = "address 198.51.100.7/32"
            await asyncio.to_thread(until, lambda: gone not in ours(node.world.node), "left to the node")
        await stays_open(node, "198.51.100.7")
        assert (await node.proxy.inspect("default/web")).missingCount == 0
        command(node.world.node, "ip address delete 198.51.100.7/32 dev up0")
        await asyncio.to_thread(until, lambda: ours(node.world.node) == before, "taken again")
        assert (await node.ask(node.world.client, "198.51.100.7", 80))[0] == "b"
        # Without endpoints the port is refused there, and nothing else.
        assert await node.program([balanced(NODE)], [placed()]) == ""
        with pytest.raises(ConnectionRefusedError):
            await node.ask(node.world.client, NODE, 80)
        assert await node.ask(node.world.client, NODE, 9101) == ("own", CLIENT)

    on_node(moded, scenario_of(body))


def test_a_load_balancer_may_ask_the_node_for_its_health(world: World) -> None:
    def health() -> tuple[int, int]:
        connection = http.client.HTTPConnection(NODE, 32000, timeout=5)
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())["localEndpoints"]
        finally:
            connection.close()

    def checked() -> service_pb2.Service:
        made = wanted()
        made.spec.type, made.spec.externalTrafficPolicy, made.spec.healthCheckNodePort = "LoadBalancer", "Local", 32000
        return made

    async def body(node: Node) -> None:
        assert await node.program([checked()], [placed(A, B, R)]) == ""
        assert await asyncio.to_thread(inside, node.world.client, health) == (200, 2)
        await node.program([checked()], [placed(R, leaving=(B,))])
        assert await asyncio.to_thread(inside, node.world.client, health) == (503, 0)

    on_node(world, scenario_of(body))


def host_ports(address: str = "", target: str = B) -> list[HostPort]:
    return [
        HostPort("default/b", "tcp", address, 8088, Endpoint(target, 8080, True)),
        HostPort("default/b", "udp", address, 8088, Endpoint(target, 5353, True)),
    ]


def test_a_host_port_leads_to_its_pod(moded: World) -> None:
    async def body(node: Node) -> None:
        node.proxy.set_host_ports(host_ports())
        await node.program([empty()], [])
        assert await node.ask(node.world.client, NODE, 8088) == ("b", CLIENT)
        assert (await node.ask(node.pods["a"], NODE, 8088))[0] == "b"
        assert (await node.ask(node.pods["b"], NODE, 8088))[0] == "b"
        for address in (NODE, "127.0.0.1", BRIDGE):
            assert (await node.ask(node.world.node, address, 8088))[0] == "b"
        flow = node.world.flow(node.world.client, NODE, 8088)
        assert await asyncio.to_thread(flow.ask) == "b"
        # Another pod takes it over, and the flow with it.
        node.proxy.set_host_ports(host_ports(target=A))
        await node.program([empty()], [])
        assert await node.ask(node.world.client, NODE, 8088) == ("a", CLIENT)
        assert await asyncio.to_thread(flow.ask) == "a"
        node.proxy.set_host_ports(host_ports(BRIDGE))
        await node.program([empty()], [])
        assert (await node.ask(node.world.node, BRIDGE, 8088))[0] == "b"
        for address in (NODE, "127.0.0.1"):
            with pytest.raises(ConnectionRefusedError):
                await node.ask(node.world.node, address, 8088)
        node.proxy.set_host_ports([])
        await node.program([empty()], [])
        with pytest.raises(ConnectionRefusedError):
            await node.ask(node.world.node, BRIDGE, 8088)

    on_node(moded, scenario_of(body))


def test_a_service_goes_before_a_host_port(moded: World) -> None:
    async def body(node: Node) -> None:
        node.proxy.set_host_ports([HostPort("default/b", "tcp", "", 30080, Endpoint(B, 8080, True))])
        await node.program([web()[0]], [web(A)[1]])
        assert await node.answers(node.world.client, NODE, 30080) == {"a"}

    on_node(moded, scenario_of(body))
