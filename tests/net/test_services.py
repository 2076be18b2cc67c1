"""What services do, the same in every proxy mode: real connections through the real kernel.

A node with the pods a and b; beside it a machine that is a client from outside, and another node with the pod r.
"""

from __future__ import annotations

import asyncio
import struct
import time

import pytest

from nodeagent import netlink
from nodeagent.proxy.ipvs import messages
from nodeagent.proxy.ipvs.plan import Front
from nodeagent.proxy.sync import ProxySync
from podplane.v1 import endpointslice_pb2, service_pb2
from tests.net.kernel import CLIENT, NODE, Talk, World, inside, until
from tests.net.proxied import (
    EMPTY,
    PACE,
    WEB,
    A,
    B,
    Change,
    Node,
    R,
    is_silent,
    on_node,
    placed,
    proxied,
    scenario_of,
    standing,
    wanted,
)
from tests.nodeagent.proxy.objects import Port, service, slice_of
from tests.support.waiting import patient


async def udp(node: Node, where: str, address: str, port: int) -> str:
    return (await udp_seen(node, where, address, port))[0]


async def udp_seen(node: Node, where: str, address: str, port: int) -> tuple[str, str]:
    """Who answers a datagram, and the source that it saw."""
    pin = {"client": node.world.client, "node": node.world.node, **node.pods}[where]
    return await asyncio.to_thread(node.world.flow(pin, address, port).answer)


def test_tcp_and_udp_share_a_number(moded: World) -> None:
    async def body(node: Node) -> None:
        assert await node.program([wanted()], [placed(B)]) == ""
        for where in ("client", "node", "a", "b"):
            for address, port in ((WEB, 80), (NODE, 30080)):
                pin = {"client": node.world.client, "node": node.world.node, **node.pods}[where]
                assert (await node.ask(pin, address, port))[0] == "b"
                assert await udp(node, where, address, port) == "b"

    on_node(moded, scenario_of(body))


def test_endpoints_of_other_nodes_answer_as_well(moded: World) -> None:
    async def body(node: Node) -> None:
        await node.program([wanted()], [placed(B, R)])
        for pin, address, port in (
            (node.pods["a"], WEB, 80),
            (node.world.node, WEB, 80),
            (node.world.node, "127.0.0.1", 30080),
            (node.world.client, NODE, 30080),
        ):
            assert await node.answers(pin, address, port, times=24) == {"b", "r"}
        # A pod of the other node keeps its address at a cluster address, on whichever node it is translated. Not with
        # itself as an endpoint: where it would reach itself is for its own node to see to.
        await node.program([wanted()], [placed(B)])
        assert await node.ask(node.world.client, WEB, 80, source=R) == ("b", R)

    on_node(moded, scenario_of(body))


def test_no_service_has_rules_that_has_no_address(moded: World) -> None:
    async def body(node: Node) -> None:
        headless = service("headless", "None", [("", "TCP", 80, 0, 8080)])
        named = service("named", "", [])
        named.spec.type, named.spec.externalName = "ExternalName", "example.com"
        await node.program([], [])
        before = node.proxy.written
        assert await node.program([headless, named], [slice_of("headless", [("", "TCP", 80, 0, 8080)], [A])]) == ""
        assert node.proxy.written == before

    on_node(moded, scenario_of(body))


def sticky(seconds: int) -> Change:
    def change(spec: service_pb2.ServiceSpec) -> None:
        spec.sessionAffinity = "ClientIP"
        spec.sessionAffinityConfig.clientIP.timeoutSeconds = seconds

    return change


def test_a_client_stays_with_its_endpoint(moded: World) -> None:
    async def body(node: Node) -> None:
        await node.program([wanted(sticky(100))], [placed(A, B, R)])
        assert len(await node.answers(node.pods["a"], WEB, 80)) == 1
        at_cluster_ip = await node.answers(node.world.client, WEB, 80)
        assert len(at_cluster_ip) == 1
        assert await node.answers(node.world.client, NODE, 30080) == at_cluster_ip
        # The other node's pod, which must not find itself: that is for its own node to see to.
        await node.program([wanted(sticky(100))], [placed(A, B)])
        assert len(await node.answers(node.world.client, WEB, 80, R)) == 1
        await node.program([wanted(sticky(100))], [placed(A, B, R)])
        [there] = await node.answers(node.world.client, NODE, 30080)
        others = [address for name, address in (("a", A), ("b", B), ("r", R)) if name != there]
        await node.program([wanted(sticky(100))], [placed(*others)])
        [now] = await node.answers(node.world.client, NODE, 30080)
        assert now != there
        # Others' coming and going moves nobody.
        await node.program([wanted(sticky(100))], [placed(A, B, R)])
        assert await node.answers(node.world.client, NODE, 30080) == {now}
        await node.program([wanted()], [placed(A, B, R)])
        assert len(await node.answers(node.world.client, NODE, 30080, times=40)) > 1

    on_node(moded, scenario_of(body))


def test_udp_flows_of_a_client_stay_together_too(moded: World) -> None:
    async def body(node: Node) -> None:
        await node.program([wanted(sticky(100))], [placed(A, B, R)])
        assert len({await udp(node, "client", NODE, 30080) for _ in range(12)}) == 1
        assert len({await udp(node, "b", WEB, 80) for _ in range(12)}) == 1

    on_node(moded, scenario_of(body))


def test_affinity_ends_after_its_time_without_a_connection(moded: World) -> None:
    if moded.mode == "ipvs":
        pytest.skip("IPVS counts a closed TCP connection as one for two minutes more, and the time from then on")

    async def body(node: Node) -> None:
        await node.program([wanted(sticky(1))], [placed(A, B, R)])
        seen = {(await node.ask(node.world.client, NODE, 30080))[0]}
        started = time.monotonic()
        while len(seen) == 1:
            assert time.monotonic() - started < 30
            await asyncio.sleep(1.3)  # not waiting for something: the silence is what is tested
            seen.add((await node.ask(node.world.client, NODE, 30080))[0])

    on_node(moded, scenario_of(body))


def test_udp_affinity_of_ipvs_ends_after_its_time_without_a_datagram(balancing: World) -> None:
    async def body(node: Node) -> None:
        await asyncio.to_thread(inside, node.world.node, lambda: remember_udp(1))
        # Longer than a flow is remembered: the kernel adds a minute where it finds one as the time ends.
        await node.program([wanted(sticky(4))], [placed(A, B, R)])
        seen = {await udp(node, "client", NODE, 30080)}
        started = time.monotonic()
        while len(seen) == 1:
            assert time.monotonic() - started < patient(60)
            await asyncio.sleep(5.5)  # not waiting for something: the silence is what is tested
            seen.add(await udp(node, "client", NODE, 30080))

    on_node(balancing, scenario_of(body))


def remember_udp(seconds: int) -> None:
    """Have IPVS forget a UDP flow after seconds of silence, for this namespace; it takes five minutes by itself."""
    set_config, timeout_udp = 12, 6  # linux/ip_vs.h
    with netlink.Socket(messages.NETLINK_GENERIC) as connection:
        family = messages.read_family(connection.ask(messages.look_up_family()))
        body = struct.pack("=BBH", set_config, 1, 0)
        for kind in (timeout_udp - 2, timeout_udp - 1, timeout_udp):  # TCP, TCP that ends: 0 leaves them
            body += netlink.attribute(kind, struct.pack("=I", seconds if kind == timeout_udp else 0))
        connection.do(netlink.Request(family, 0, body, "set the time-outs of IPVS"))


def outside_local(spec: service_pb2.ServiceSpec) -> None:
    spec.externalTrafficPolicy = "Local"


def inside_local(spec: service_pb2.ServiceSpec) -> None:
    spec.internalTrafficPolicy = "Local"


def test_an_external_policy_of_local_keeps_the_source_and_stays_here(moded: World) -> None:
    async def body(node: Node) -> None:
        await node.program([wanted(outside_local)], [placed(B, R)])
        assert await node.ask(node.world.client, NODE, 30080) == ("b", CLIENT)
        assert await node.answers(node.world.client, NODE, 30080) == {"b"}
        assert [await udp_seen(node, "client", NODE, 30080) for _ in range(4)] == [("b", CLIENT)] * 4
        # Pods and the node itself ask inside the cluster, whichever address they use.
        for pin, address, port in (
            (node.pods["a"], NODE, 30080),
            (node.world.node, NODE, 30080),
            (node.world.node, "127.0.0.1", 30080),
            (node.pods["a"], WEB, 80),
            (node.world.client, WEB, 80),
        ):
            assert await node.answers(pin, address, port, times=24) == {"b", "r"}
        # The serving pod itself, by way of the node's port.
        assert "b" in await node.answers(node.pods["b"], NODE, 30080, times=24)

    on_node(moded, scenario_of(body))


def test_without_a_local_endpoint_those_from_outside_hear_nothing(moded: World) -> None:
    async def body(node: Node) -> None:
        await node.program([wanted(outside_local)], [placed(R)])
        assert await is_silent(node, "client", NODE, 30080)
        for pin, address, port in (
            (node.pods["a"], NODE, 30080),
            (node.world.node, NODE, 30080),
            (node.world.node, "127.0.0.1", 30080),
            (node.pods["a"], WEB, 80),
        ):
            assert (await node.ask(pin, address, port))[0] == "r"
        # Without any endpoint at all it is refused, as ever.
        await node.program([wanted(outside_local)], [placed()])
        for pin, address, port in ((node.world.client, NODE, 30080), (node.pods["a"], WEB, 80)):
            with pytest.raises(ConnectionRefusedError):
                await node.ask(pin, address, port)

    on_node(moded, scenario_of(body))


def test_an_external_policy_of_local_does_the_same_for_udp(moded: World) -> None:
    async def body(node: Node) -> None:
        await node.program([wanted(outside_local)], [placed(R)])
        client = node.world.flow(node.world.client, NODE, 30080)
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(client.answer)
        for where, address, port in (("a", NODE, 30080), ("node", NODE, 30080), ("a", WEB, 80)):
            assert await udp(node, where, address, port) == "r"
        # The flow that heard nothing is answered as soon as somebody is here.
        await node.program([wanted(outside_local)], [placed(B, R)])
        assert await asyncio.to_thread(client.answer) == ("b", CLIENT)
        assert {await udp(node, "client", NODE, 30080) for _ in range(8)} == {"b"}
        assert {await udp(node, "a", NODE, 30080) for _ in range(24)} == {"b", "r"}
        await node.program([wanted(outside_local)], [placed()])
        with pytest.raises(ConnectionRefusedError):
            await udp(node, "client", NODE, 30080)

    on_node(moded, scenario_of(body))


def test_endpoints_on_the_nodes_own_addresses_answer(moded: World) -> None:
    async def body(node: Node) -> None:
        for pin, name, address in ((node.world.node, "host", NODE), (node.world.client, "far", CLIENT)):
            node.world.serve(pin, name, address, 8080)
            node.world.serve(pin, name, address, 5353, udp=True)
        pins = {"client": node.world.client, "node": node.world.node, "a": node.pods["a"]}
        asked = [("client", NODE, 30080), ("client", WEB, 80), ("a", WEB, 80), ("a", NODE, 30080)]
        asked += [("node", WEB, 80), ("node", NODE, 30080), ("node", "127.0.0.1", 30080)]
        for change in (None, outside_local):
            await node.program([wanted(change)], [placed(NODE)])
            for where, address, port in asked:
                assert (await node.ask(pins[where], address, port))[0] == "host", (change, where, address)
                assert await udp(node, where, address, port) == "host", (change, where, address)
            await node.program([wanted(change)], [placed(NODE, CLIENT)])
            for where, address, port in asked:
                stays = change is not None and (where, address) == ("client", NODE)
                answers = await node.answers(pins[where], address, port, times=20)
                assert answers == ({"host"} if stays else {"host", "far"}), (change, where, address)
        assert await node.ask(node.world.client, NODE, 30080) == ("host", CLIENT)

    on_node(moded, scenario_of(body))


def test_an_internal_policy_of_local_stays_here(moded: World) -> None:
    async def body(node: Node) -> None:
        await node.program([wanted(inside_local)], [placed(B, R)])
        for pin in (node.pods["a"], node.world.node):
            assert await node.answers(pin, WEB, 80) == {"b"}
        assert [await udp_seen(node, "a", WEB, 80) for _ in range(4)] == [("b", A)] * 4
        assert await node.answers(node.world.client, NODE, 30080, times=24) == {"b", "r"}
        assert {await udp(node, "client", NODE, 30080) for _ in range(24)} == {"b", "r"}
        await node.program([wanted(inside_local)], [placed(R)])
        for where in ("a", "node"):
            assert await is_silent(node, where, WEB, 80)
        assert (await node.ask(node.world.client, NODE, 30080))[0] == "r"

    on_node(moded, scenario_of(body))


def test_endpoints_that_are_leaving_serve_where_none_is_ready(moded: World) -> None:
    async def body(node: Node) -> None:
        await node.program([wanted()], [placed(A, leaving=(B,))])
        assert await node.answers(node.world.client, NODE, 30080) == {"a"}
        await node.program([wanted()], [placed(leaving=(B,), unready=(A,))])
        assert await node.answers(node.world.client, NODE, 30080) == {"b"}
        # A policy of Local looks at this node's alone.
        await node.program([wanted(outside_local)], [placed(R, leaving=(B,))])
        assert await node.answers(node.world.client, NODE, 30080) == {"b"}
        assert await node.answers(node.pods["a"], WEB, 80) == {"r"}
        await node.program([wanted()], [placed(unready=(A, B))])
        with pytest.raises(ConnectionRefusedError):
            await node.ask(node.world.client, NODE, 30080)

    on_node(moded, scenario_of(body))


def test_a_connection_outlives_its_endpoints_leaving(moded: World) -> None:
    outer: list[Port] = [("talk", "TCP", 80, 30080, 8088)]
    inner: list[Port] = [("talk", "TCP", 80, 0, 8088)]
    services = [service("outer", WEB, outer), service("inner", EMPTY, inner)]

    def placed_at(address: str) -> list[endpointslice_pb2.EndpointSlice]:
        return [slice_of("outer", outer, [address]), slice_of("inner", inner, [address])]

    async def body(node: Node) -> None:
        for name, address in (("a", A), ("b", B)):
            node.world.serve(node.pods[name], name, address, 8088, lasting=True)
        await node.program(services, placed_at(A))
        asked = [(node.world.client, NODE, 30080), (node.pods["b"], EMPTY, 80), (node.world.node, EMPTY, 80)]
        talks = [await asyncio.to_thread(node.world.talk, *where) for where in asked]
        assert [talk.name for talk in talks] == ["a"] * 3
        await node.program(services, placed_at(B))
        for where in asked:
            assert await node.answers(*where, times=3) == {"b"}
        assert [await asyncio.to_thread(talk.say, "still there?") for talk in talks] == ["still there?"] * 3
        if node.world.mode == "ipvs":
            await drains(node, talks)

    async def drains(node: Node, talks: list[Talk]) -> None:
        def left() -> dict[tuple[str, int], int]:
            return {target: real.weight for target, real in standing(node.world.node)[inside_only].reals.items()}

        inside_only = Front("tcp", EMPTY, 80)
        assert left() == {(A, 8088): 0, (B, 8088): 1}
        assert standing(node.world.node)[inside_only].reals[A, 8088].connections == 2
        for talk in talks:
            talk.close()
        # IPVS remembers a connection for ten seconds after its reset.
        await asyncio.to_thread(until, lambda: left() == {(B, 8088): 1}, "the one that left is gone", 30)

    on_node(moded, scenario_of(body))


def test_the_scheduler_that_is_asked_for_chooses(balancing: World) -> None:
    async def scenario(node: Node) -> None:
        for scheduler in ("lc", "sh"):
            successor = Node(node.world, ProxySync("ipvs", node.world.directory, PACE, scheduler), node.pods)
            async with proxied(successor):
                assert await successor.program([wanted(outside_local)], [placed(A, B)]) == ""
                found = standing(node.world.node)
                assert {server.scheduler for server in found.values()} == {scheduler}
                assert len(found) == 4
                for address, port in ((WEB, 80), (NODE, 30080)):
                    assert await node.answers(node.world.client, address, port, times=4) <= {"a", "b"}
        # By the source's hash a client stays with one.
        assert len(await node.answers(node.world.client, WEB, 80)) == 1

    on_node(balancing, scenario)
