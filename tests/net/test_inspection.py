"""What is read back of a service from the real kernel, in every mode: all of it, and just what others have changed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from nodeagent.proxy.inspection import fill
from nodeagent.proxy.mode import Mode, Wanted
from nodeagent.proxy.modes import KINDS
from nodeagent.proxy.services import ServicePort, ports_of
from podplane.v1 import service_pb2
from podplane.v1.diagnosis_pb2 import ServiceRules, ServiceWay
from tests.net.kernel import CLIENT, World, command
from tests.net.proxied import RANGES, REMOTE_PODS, WEB, A, B, Node, R, empty, flavours, on_node, proxied, web
from tests.support.waiting import patient

KEY = "default/web"
Inspect = Callable[[], Awaitable[ServiceRules]]


def ports(change: Callable[[service_pb2.ServiceSpec], None] = lambda _: None, *ready: str) -> tuple[ServicePort, ...]:
    made, where = web(*(ready or (A, B, R)))
    change(made.spec)
    for endpoint in where.endpoints:
        endpoint.nodeName = "node-2" if endpoint.addresses[0] == R else "node-1"
    return ports_of(made, [where], "node-1")


@contextlib.asynccontextmanager
async def programmed(node: Node, wanted: tuple[ServicePort, ...]) -> AsyncIterator[tuple[Mode, Inspect]]:
    """A mode that has programmed the service and another one, and mends nothing; and what is read back."""
    [kind] = [kind for kind in KINDS if kind.name == node.world.mode]
    mode = await kind.open("rr", node.world.directory)

    async def inspect() -> ServiceRules:
        made = ServiceRules()
        fill(made, wanted, await mode.inspect(KEY, wanted, RANGES))
        return made

    try:
        others = ports_of(empty(), [], "node-1")
        assert await mode.apply(Wanted(RANGES, {"default/empty": others, KEY: wanted})) == {}
        yield mode, inspect
    finally:
        await mode.close()


def local(spec: service_pb2.ServiceSpec) -> None:
    spec.externalTrafficPolicy = spec.internalTrafficPolicy = "Local"


def sticky(spec: service_pb2.ServiceSpec) -> None:
    spec.sessionAffinity = "ClientIP"


def balanced(spec: service_pb2.ServiceSpec) -> None:
    spec.type, spec.externalTrafficPolicy = "LoadBalancer", "Local"


def test_what_stands_as_it_should_has_no_difference(moded: World) -> None:
    async def scenario(node: Node) -> None:
        changes = (lambda _: None, local, sticky, balanced)
        many = (A, B, *(f"10.77.2.{number}" for number in range(9, 12)))
        for wanted in (ports(change, *ready) for change in changes for ready in ((), (R,), (A,), many)):
            async with programmed(node, wanted) as (_, inspect):
                found = await inspect()
                assert (list(found.missing), list(found.extra)) == ([], [])
                assert found.standing > 10
                assert all(way.links and not way.missing for way in found.ways)

    on_node(moded, scenario)


async def mended(mode: Mode, inspect: Inspect) -> None:
    async with asyncio.timeout(patient(5)):
        while (found := await inspect()).missingCount or found.extraCount:
            await mode.look()


def way(found: ServiceRules, source: str, destination: str, number: int) -> ServiceWay:
    [one] = [each for each in found.ways if (each.source, each.destination, each.port) == (source, destination, number)]
    return one


def test_each_way_says_who_answers_and_who_is_masqueraded(moded: World) -> None:
    async def scenario(node: Node) -> None:
        async with programmed(node, ports(local)) as (_, inspect):
            found = await inspect()
            inside = way(found, "pod", "ClusterIP", 80)
            assert (inside.action, inside.masquerade, list(inside.endpoints)) == (
                "Forward", False, [f"{A}:8080", f"{B}:8080"])  # fmt: skip
            assert (inside.address, inside.protocol, inside.portName) == (WEB, "TCP", "http")
            outside = way(found, "outside", "NodePort", 30080)
            assert (list(outside.endpoints), outside.masquerade) == ([f"{A}:8080", f"{B}:8080"], False)
            own = way(found, "node", "NodePort", 30080)
            assert (list(own.endpoints), own.masquerade) == ([f"{A}:8080", f"{B}:8080", f"{R}:8080"], True)
        async with programmed(node, ports(local, R)) as (_, inspect):
            found = await inspect()
            assert way(found, "outside", "NodePort", 30080).action == "Drop"
            assert way(found, "pod", "NodePort", 30080).action == "Forward"
        none = ports_of(web()[0], [], "node-1")
        async with programmed(node, none) as (_, inspect):
            found = await inspect()
            assert {each.action for each in found.ways} == {"Refuse"}
            assert (list(found.missing), list(found.extra)) == ([], [])

    on_node(moded, scenario)


BREAKAGE = {
    # mode → what is broken → (what is missing, what is in its place)
    "iptables": [
        ("iptables -t nat -D PREROUTING 1", "nat PREROUTING: ", ""),
        ("iptables -t nat -I PODPLANE-SERVICES -j RETURN", "", "nat PODPLANE-SERVICES: -j RETURN"),
        ("iptables -t nat -F PODPLANE-NODEPORTS", "nat PODPLANE-NODEPORTS: -p ", ""),
    ],
    "nftables": [
        (f"nft delete element ip podplane-services portals-3 {{ {WEB} . tcp . 80 }}", f"portals-3: {WEB} . tcp", ""),
        ("nft flush chain ip podplane-services node-pick-3", "chain node-pick-3: 2", "chain node-pick-3: 0"),
        (f"nft add element ip podplane-services backends-tcp {{ {WEB} . 80 . 7 : 10.9.9.9 . 1 }}", "", "backends-tcp:"),
    ],
    "ipvs": [
        ("nft delete element ip podplane-ipvs node_ports { tcp . 30080 }", "node_ports: tcp . 30080", ""),
        (f"ip address delete {WEB}/32 dev podplane-ipvs0", f"address {WEB} on podplane-ipvs0", ""),
        ("nft flush chain ip podplane-ipvs services", "chain services: 5", "chain services: 0"),
    ],
}


def test_what_others_have_changed_is_named_and_nothing_else(moded: World) -> None:
    async def scenario(node: Node) -> None:
        async with programmed(node, ports()) as (mode, inspect):
            for line, missing, extra in BREAKAGE[mode.name]:
                flavour = f"iptables-{flavours(node.world.node)[-1]}"
                mode.listen(lambda: None)  # or mode ipvs would look only now and then
                command(node.world.node, line.replace("iptables -", f"{flavour} -"))
                found = await inspect()
                assert [each[: len(missing)] for each in found.missing] == [missing] * found.missingCount
                assert [each[: len(extra)] for each in found.extra] == [extra] * found.extraCount
                assert (found.missingCount > 0, found.extraCount > 0) == (bool(missing), bool(extra))
                broken = {line for each in found.ways for line in each.missing}
                assert broken == set(found.missing)
                await mended(mode, inspect)

    on_node(moded, scenario)


def test_a_table_that_is_gone_is_missing_as_a_whole(world: World) -> None:
    async def scenario(node: Node) -> None:
        async with programmed(node, ports()) as (mode, inspect):
            whole = (await inspect()).standing
            command(node.world.node, "nft delete table ip nat")
            found = await inspect()
            assert (found.extraCount, found.standing + found.missingCount) == (0, whole)
            assert all(way.missing for way in found.ways)
            assert await mode.look()
            assert (await inspect()).missingCount == 0

    on_node(world, scenario)


def test_a_virtual_server_that_is_gone_is_named(moded: World) -> None:
    if moded.mode != "ipvs":
        pytest.skip(f"mode {moded.mode} has no virtual servers")

    async def scenario(node: Node) -> None:
        async with programmed(node, ports()) as (_, inspect):
            command(node.world.node, "ip address add 10.9.9.9/32 dev podplane-ipvs0")
            from nodeagent.proxy.ipvs import kernel
            from nodeagent.proxy.ipvs.plan import Front
            from nodeagent.proxy.ipvs.servers import DeleteReal, DeleteServer

            ipvs = kernel.Ipvs()
            assert ipvs.perform([DeleteReal(Front("tcp", WEB, 80), (R, 8080))]) == {}
            assert list((await inspect()).missing) == [f"real server tcp {WEB}:80 -> {R}:8080"]
            assert ipvs.perform([DeleteServer(Front("tcp", WEB, 80))]) == {}
            assert f"virtual server tcp {WEB}:80 rr" in (await inspect()).missing
            ipvs.close()

    on_node(moded, scenario)


def test_a_firewall_that_drops_what_is_forwarded_is_told(moded: World) -> None:
    async def scenario(node: Node) -> None:
        async with proxied(node):
            await node.program([web()[0]], [web(A)[1]])
            assert list((await node.proxy.inspect(KEY)).obstacles) == []
            command(node.world.node, "nft add table inet fw")
            command(
                node.world.node, "nft add chain inet fw gate { type filter hook forward priority 5 ; policy drop ; }"
            )
            assert list((await node.proxy.inspect(KEY)).obstacles) == ["table inet fw, chain gate: policy drop"]
            command(node.world.node, "nft delete table inet fw")

    on_node(moded, scenario)


def test_endpoints_that_no_route_leads_to_are_told(world: World) -> None:
    async def scenario(node: Node) -> None:
        made, placed = web(A, R)
        placed.endpoints[1].nodeName = "node-2"
        async with proxied(node):
            await node.program([made], [placed])
            assert dict((await node.proxy.inspect(KEY)).unreachable) == {}
            command(node.world.node, f"ip route delete {REMOTE_PODS}")
            # The default route would take it out of the cluster.
            assert dict((await node.proxy.inspect(KEY)).unreachable) == {R: "no route of the pod network leads to it"}
            command(node.world.node, "ip route delete default")
            assert dict((await node.proxy.inspect(KEY)).unreachable) == {R: "no route leads to it"}
            command(node.world.node, f"ip route add blackhole {REMOTE_PODS}")
            assert list((await node.proxy.inspect(KEY)).unreachable) == [R]
            command(node.world.node, f"ip route delete blackhole {REMOTE_PODS}")
            command(node.world.node, f"ip route add default via {CLIENT}")

    on_node(world, scenario)


def test_the_proxy_tells_its_revision_and_what_it_does_not_know(world: World) -> None:
    async def scenario(node: Node) -> None:
        before = await node.proxy.inspect(KEY)
        assert not before.known
        assert "not heard of any service" in before.error
        async with proxied(node):
            await node.program([web()[0]], [web(A)[1]])
            found = await node.proxy.inspect(KEY)
            assert (found.known, found.mode, found.programmedRevision, found.knownRevision) == (True, "iptables", 1, 1)
            assert (found.error, found.serviceError, found.missingCount, found.extraCount) == ("", "", 0, 0)
            assert not (await node.proxy.inspect("default/absent")).known
            broken = web()[0]
            broken.spec.clusterIP = "fd00::1"
            await node.program([broken], [web(A)[1]])
            found = await node.proxy.inspect(KEY)
            assert found.serviceError == "'fd00::1' is not an IPv4 address"

    on_node(world, scenario)
