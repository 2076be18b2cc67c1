"""Services through the real kernel: a node with two pods, a client beside it, the proxy's rules between them."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
from pathlib import Path

import pytest

from nodeagent.proxy.nftables.table import TABLE
from nodeagent.proxy.sync import ProxySync
from tests.net.conftest import missing
from tests.net.kernel import CLIENT, NODE, World, command, inside
from tests.net.proxied import (
    CLUSTER,
    EMPTY,
    PACE,
    WEB,
    A,
    B,
    Node,
    asked_meanwhile,
    empty,
    flavours,
    on_node,
    ours,
    proxied,
    web,
)
from tests.nodeagent.proxy.objects import service, slice_of
from tests.support.waiting import patient, promised


@pytest.mark.parametrize("bridge_filter", [0, 1])
def test_who_answers_whom(moded: World, bridge_filter: int) -> None:
    # Where br_netfilter is loaded, what stays on the bridge meets the rules as well.
    if bridge_filter:
        subprocess.run(["modprobe", "br_netfilter"], capture_output=True, timeout=patient(20), check=False)
    name = "net.bridge.bridge-nf-call-iptables"
    if inside(moded.node, lambda: Path("/proc/sys", name.replace(".", "/")).exists()):
        command(moded.node, f"sysctl -w {name}={bridge_filter}")
    elif bridge_filter:
        pytest.skip("this kernel has no br_netfilter")

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

    on_node(moded, scenario)


def test_without_endpoints_it_is_refused_at_once(moded: World) -> None:
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
                assert asyncio.get_running_loop().time() - started < promised(0.5)

    on_node(moded, scenario)


def test_every_endpoint_is_hit_and_then_those_that_are_left(moded: World) -> None:
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

    on_node(moded, scenario)


def test_a_pod_leaves_the_cluster_under_the_nodes_address(moded: World) -> None:
    async def scenario(node: Node) -> None:
        node.world.serve(node.world.client, "internet", CLIENT, 80)
        async with proxied(node):
            await node.program([], [])
            assert await node.ask(node.pods["a"], CLIENT, 80) == ("internet", NODE)

    on_node(moded, scenario)


def test_localhost_stays_closed_to_others(moded: World) -> None:
    def reaches_localhost() -> bool:
        private = inside(moded.node, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        flow = moded.flow(moded.client, "127.0.0.1", 9999)
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
            command(moded.client, f"ip route delete table local local {line} dev lo")
        command(moded.client, f"ip route add 127.0.0.1 via {NODE} src {CLIENT}")
        command(moded.node, "sysctl -w net.ipv4.conf.all.route_localnet=1")
        assert await asyncio.to_thread(reaches_localhost)
        command(moded.node, "sysctl -w net.ipv4.conf.all.route_localnet=0")
        async with proxied(node):
            await node.program([], [])
            assert command(moded.node, "sysctl -n net.ipv4.conf.all.route_localnet").strip() == "1"
            assert not await asyncio.to_thread(reaches_localhost)

    on_node(moded, scenario)


def test_a_udp_flow_leaves_an_endpoint_that_is_gone(moded: World) -> None:
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

    on_node(moded, scenario)


def test_only_what_differs_is_written(flavoured: World) -> None:
    async def scenario(node: Node) -> None:
        services = [service(f"s{number}", f"10.96.1.{number}", [("", "TCP", 80, 0, 8080)]) for number in range(1, 101)]
        slices = [slice_of(f"s{number}", [("", "TCP", 80, 0, 8080)], [A]) for number in range(1, 101)]
        async with proxied(node):
            await node.program(services, slices)
            assert node.proxy.written > 3 * len(services)
            before = node.proxy.written
            await node.program(services, slices)
            assert node.proxy.written == before
            slices[7] = slice_of("s8", [("", "TCP", 80, 0, 8080)], [B])
            await node.program(services, slices)
            # The service's chain and that of this node's endpoints: declared and filled, and two lines around.
            assert 0 < node.proxy.written - before <= 8
            assert await node.ask(node.world.node, "10.96.1.8", 80) == ("b", "10.77.1.1")

    on_node(flavoured, scenario)


def test_a_restarted_agent_adopts_the_rules_and_no_packet_falls(moded: World) -> None:
    async def scenario(node: Node) -> None:
        wanted = [web()[0], empty()], [web(A, B)[1]]
        async with proxied(node):
            await node.program(*wanted)
        whole = ours(node.world.node)
        successor = Node(node.world, ProxySync(node.world.mode, node.world.directory, PACE), node.pods)
        async with asked_meanwhile(node, (node.world.client, NODE, 30080)) as answered, proxied(successor):
            await successor.program(*wanted)
            assert successor.proxy.written == 0
            await successor.program([wanted[0][0]], [web(A)[1]])
            await successor.program(*wanted)
        assert len(answered) > 5
        assert ours(node.world.node) == whole

    on_node(moded, scenario)


@pytest.mark.parametrize(
    "damage", ["", f"nft delete element ip {TABLE} portals-2 {{ {WEB} . tcp . 80 }}"], ids=["whole", "damaged"]
)
def test_rules_that_are_read_before_services_are_known_are_adopted_as_they_stand_then(
    world: World, damage: str
) -> None:
    async def scenario(node: Node) -> None:
        async with proxied(node):
            await node.program([web()[0], empty()], [web(A, B)[1]])
        whole = ours(node.world.node)
        successor = Node(node.world, ProxySync("auto", node.world.directory, PACE), node.pods)
        async with proxied(successor):
            async with asyncio.timeout(patient(10)):
                while successor.proxy.mode == "auto":
                    await asyncio.sleep(0.005)
                assert not (await successor.proxy.inspect("default/web")).known  # it comes when that work is done
            if damage:
                await asyncio.to_thread(command, node.world.node, damage)
            await successor.program([web()[0], empty()], [web(A, B)[1]])
            assert successor.proxy.written == (1 if damage else 0)
        assert ours(node.world.node) == whole

    if reason := missing("nftables"):
        pytest.skip(f"mode nftables does not work here: {reason}")
    world.mode = "nftables"
    on_node(world, scenario)


_STICKY_RULE = re.compile(
    r"-A (\S+) -p (\S+)(.*) -m recent --(\S+)(.*) (--name (\S+) .*) -j DNAT --to-destination (\S+)"
)


def older(saved: str) -> str:
    """The rules of an older version for a service with affinity: what makes them of those that stand.

    It had a chain for each endpoint, which marked what that sent to itself, and marked others service by service.
    """
    kept = "-A PODPLANE-SERVICES", "-A PODPLANE-POSTROUTING"
    lines, chains = [], {"PODPLANE-HAIRPINS", "PODPLANE-SERVICES", "PODPLANE-POSTROUTING"}
    for line in saved.splitlines():
        if found := _STICKY_RULE.fullmatch(line):
            own, protocol, chance, kind, span, name, chain, endpoint = found.groups()
            if own not in chains:
                lines.append(f"-A {own} ! -s {CLUSTER} -j PODPLANE-MARK-MASQ")
            chains |= {own, chain}
            if kind == "update":
                lines.append(f"-A {own} -m recent --rcheck{span} {name} -j {chain}")
                lines.append(f"-A {chain} -s {endpoint.partition(':')[0]}/32 -j PODPLANE-MARK-MASQ")
                lines.append(f"-A {chain} -p {protocol} -m recent --set {name} -j DNAT --to-destination {endpoint}")
            else:
                lines.append(f"-A {own}{chance} -j {chain}")
        elif line.startswith(kept) and not line.endswith(("MARK-MASQ", " 0x0/0x2000", "HAIRPINS")):
            lines.append(line)
    made = [f":{chain} - [0:0]" for chain in sorted(chains)]
    return "\n".join(["*nat", *made, *lines, "-X PODPLANE-HAIRPINS", "COMMIT", ""])


def test_rules_of_an_older_version_are_replaced_and_nobody_notices(flavoured: World) -> None:
    flavour = f"iptables-{flavours(flavoured.node)[-1]}"

    async def scenario(node: Node) -> None:
        made, slices = web(A, B)
        made.spec.sessionAffinity = "ClientIP"
        async with proxied(node):
            await node.program([made, empty()], [slices])
        whole = ours(node.world.node)
        script = older(command(node.world.node, f"{flavour}-save -t nat"))
        assert script.count(":PODPLANE-SEP-") == 6
        command(node.world.node, f"{flavour}-restore --noflush", script)
        stays, _ = await node.ask(node.world.client, NODE, 30080)
        successor = Node(node.world, ProxySync(node.world.mode, node.world.directory, PACE), node.pods)
        async with asked_meanwhile(node, (node.world.client, NODE, 30080)) as answered, proxied(successor):
            await successor.program([made, empty()], [slices])
            assert ours(node.world.node) == whole
            for name, own in (("a", A), ("b", B)):
                who, seen = await node.ask(node.pods[name], WEB, 80)
                assert seen == ("10.77.1.1" if who == name else own)
        assert set(answered) == {stays}

    on_node(flavoured, scenario)


def as_before_sets(listed: str) -> str:
    """The table as versions had it that led each place to a chain by an element of its own: a script that makes it."""
    places = (f"{WEB} . tcp . 80", "portals", "pick-2"), ("tcp . 30080", "node-ports", "node-pick-2")
    lines = [f"delete table ip {TABLE}", re.sub(r'comment "podplane \w+"', 'comment "podplane older"', listed, count=1)]
    for place, container, chain in places:
        lines.append(f"delete element ip {TABLE} {container}-2 {{ {place} }}")
        lines.append(f"add element ip {TABLE} {container} {{ {place} : goto {chain} }}")
    return "\n".join([*lines, ""])


def test_a_table_of_an_older_version_is_replaced_and_nobody_notices(world: World) -> None:
    async def scenario(node: Node) -> None:
        wanted = [web()[0], empty()], [web(A, B)[1]]
        async with proxied(node):
            await node.program(*wanted)
        whole = ours(node.world.node)
        command(node.world.node, "nft -f -", as_before_sets(command(node.world.node, f"nft list table ip {TABLE}")))
        assert ours(node.world.node) != whole
        successor = Node(node.world, ProxySync(node.world.mode, node.world.directory, PACE), node.pods)
        async with asked_meanwhile(node, (node.world.client, NODE, 30080)) as answered, proxied(successor):
            await successor.program(*wanted)
            assert ours(node.world.node) == whole
        assert {"a", "b"} >= set(answered) > set()

    if reason := missing("nftables"):
        pytest.skip(f"mode nftables does not work here: {reason}")
    world.mode = "nftables"
    on_node(world, scenario)


def test_a_service_that_makes_no_sense_holds_up_no_other(moded: World) -> None:
    async def scenario(node: Node) -> None:
        invalid = service("invalid", "fd00::1", [("", "TCP", 80, 0, 8080)])
        async with proxied(node):
            said = await node.program([invalid, web()[0]], [web(B)[1]])
            assert said == "default/invalid: 'fd00::1' is not an IPv4 address"
            assert await node.ask(node.world.client, NODE, 30080) == ("b", "10.77.1.1")

    on_node(moded, scenario)


def test_rules_of_the_flavour_that_is_not_in_use_any_more_go(world: World) -> None:
    async def scenario(node: Node) -> None:
        async with proxied(node):
            await node.program([web()[0]], [web(B)[1]])
        assert "PODPLANE" in command(world.node, "iptables-nft-save")
        command(world.node, "iptables-legacy -A FORWARD -s 203.0.113.9 -j DROP")
        successor = Node(node.world, ProxySync(node.world.mode, node.world.directory, PACE), node.pods)
        async with proxied(successor):
            await successor.program([web()[0]], [web(B)[1]])
            assert "PODPLANE" not in command(world.node, "iptables-nft-save")
            assert "PODPLANE" in command(world.node, "iptables-legacy-save")
            assert await node.ask(node.world.client, NODE, 30080) == ("b", "10.77.1.1")
        command(world.node, "iptables-legacy -D FORWARD -s 203.0.113.9 -j DROP")

    on_node(world, scenario)
