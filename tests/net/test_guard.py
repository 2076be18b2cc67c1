"""What pods can and cannot do on the pod network, with no proxy at all; and a network that others take apart."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from nodeagent.sandbox.guard import METADATA, Closed
from nodeagent.sandbox.ipam import hardware_address
from nodeagent.sandbox.network import BRIDGE, Network, Settings, host_link
from nodeagent.sandbox.sandboxes import Sandboxes
from nodeagent.types import SandboxRequest
from tests.net.kernel import CLIENT, NODE, World, ask, assert_unchanged, command, inside, traces

PODS, CLUSTER = "10.77.1.0/24", "10.77.0.0/16"
GATEWAY, A, B = "10.77.1.1", "10.77.1.2", "10.77.1.3"
AGENT = Closed(agent_ports=((None, 9100),))
_IPV4, _ARP = 0x0800, 0x0806


class Pods:
    """The network under test and the namespaces of its two pods."""

    def __init__(self, network: Network, a: Path, b: Path) -> None:
        self.network, self.a, self.b = network, a, b


def on_node(world: World, closed: Closed, scenario: Callable[[Pods], Awaitable[None]]) -> None:
    """Run a scenario on a node with two pods, and check that nothing of it is left."""

    async def run() -> None:
        network = await Network.open(world.directory, Settings(closed=closed))
        sandboxes = Sandboxes(world.directory, network)
        try:
            await network.configure(PODS, {"10.77.2.0/24": CLIENT}, CLUSTER)
            assert network.problem is None
            pins = []
            for name, address in (("a", A), ("b", B)):
                made = await sandboxes.create(SandboxRequest(f"pod-{name}", 0, name, address))
                assert made.net is not None
                pins.append(made.net)
            await scenario(Pods(network, *pins))
        finally:
            world.close_sockets()
            await sandboxes.cleanup()
            await network.cleanup()
            network.close()

    before = traces(world.node, world.directory)
    inside(world.node, lambda: asyncio.run(run()))
    assert_unchanged(world.node, world.directory, before)


def datagram(source: str, target: str, port: int) -> bytes:
    """An IPv4 packet with a UDP datagram of one byte, as raw sockets take it; UDP's checksum is left out."""
    payload = struct.pack("!HHHH", 4000, port, 9, 0) + b"?"
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, socket.IPPROTO_UDP, 0)
    head += IPv4Address(source).packed + IPv4Address(target).packed
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[12:] + payload


def announcement(owner: str, mac: bytes) -> bytes:
    """An ARP reply to everybody: owner is at mac."""
    address = IPv4Address(owner).packed
    return struct.pack("!HHBBH", 1, _IPV4, 6, 4, 2) + mac + address + mac + address


def send(pin: Path, source: bytes, target: bytes, kind: int, payload: bytes) -> None:
    """Send a frame from a pod, whatever it says."""

    def work() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", kind))
            raw.send(target + source + struct.pack("!H", kind) + payload)

    inside(pin, work)


def listener(pin: Path, kind: int) -> socket.socket:
    """A socket that gets every frame of a kind that reaches a pod's eth0."""

    def work() -> socket.socket:
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind))
        raw.bind(("eth0", kind))
        raw.settimeout(2)
        return raw

    return inside(pin, work)


MAC_A, MAC_B, MAC_GATEWAY = (hardware_address(IPv4Address(address)) for address in (A, B, GATEWAY))


def test_a_pod_sends_under_its_own_address_only(world: World) -> None:
    async def scenario(pods: Pods) -> None:
        sink = inside(world.node, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sink.bind((GATEWAY, 5000))
        sink.settimeout(2)
        with sink:
            # A neighbour's address, nobody's, the node's, one of another network; then with a neighbour's MAC.
            for source in (B, "10.77.1.77", GATEWAY, NODE, CLIENT, "10.77.2.9"):
                send(pods.a, MAC_A, MAC_GATEWAY, _IPV4, datagram(source, GATEWAY, 5000))
            send(pods.a, MAC_B, MAC_GATEWAY, _IPV4, datagram(B, GATEWAY, 5000))
            send(pods.a, MAC_B, MAC_GATEWAY, _IPV4, datagram(A, GATEWAY, 5000))
            send(pods.a, MAC_A, MAC_GATEWAY, _IPV4, datagram(A, GATEWAY, 5000))
            # The last is the first that comes: all of them take the same way, in order.
            assert sink.recvfrom(100)[1] == (A, 4000)
            sink.setblocking(False)
            with pytest.raises(BlockingIOError):
                sink.recv(100)

    on_node(world, Closed(), scenario)


def test_a_pod_cannot_take_a_neighbours_place_on_the_bridge(world: World) -> None:
    async def scenario(pods: Pods) -> None:
        with listener(pods.b, _ARP) as heard:
            everybody = b"\xff" * 6
            send(pods.a, MAC_A, everybody, _ARP, announcement(GATEWAY, MAC_A))
            send(pods.a, MAC_A, everybody, _ARP, announcement(B, MAC_A))
            send(pods.a, MAC_B, everybody, _ARP, announcement(A, MAC_A))
            send(pods.a, MAC_A, everybody, 0x86DD, b"\0" * 40)
            send(pods.a, MAC_A, everybody, _ARP, announcement(A, MAC_A))
            frames = [heard.recv(2000)[28:32]]
            while frames[-1] != IPv4Address(A).packed:
                frames.append(heard.recv(2000)[28:32])
            assert set(frames) <= {IPv4Address(A).packed}
        ports = command(world.node, f"bridge fdb show br {BRIDGE}").splitlines()
        assert not [line for line in ports if MAC_B.hex(":") in line and host_link("pod-a", 0) in line]

    on_node(world, Closed(), scenario)


def test_pods_reach_each_other_and_the_outside_under_the_nodes_address(world: World) -> None:
    async def scenario(pods: Pods) -> None:
        world.serve(pods.b, "b", B, 80)
        world.serve(world.client, "outside", CLIENT, 80)
        assert ask(pods.a, B, 80) == ("b", A)
        assert ask(pods.a, CLIENT, 80) == ("outside", NODE)
        assert ask(world.node, B, 80) == ("b", GATEWAY)

    on_node(world, Closed(), scenario)


def test_metadata_is_closed_to_pods_by_default_and_open_to_the_node(world: World) -> None:
    async def closed(pods: Pods) -> None:
        world.serve(world.client, "cloud", str(METADATA), 80)
        assert ask(world.node, str(METADATA), 80)[0] == "cloud"
        with pytest.raises(ConnectionRefusedError):
            ask(pods.a, str(METADATA), 80)

    async def opened(pods: Pods) -> None:
        world.serve(world.client, "cloud", str(METADATA), 80)
        assert ask(pods.a, str(METADATA), 80) == ("cloud", NODE)

    command(world.client, f"ip address add {METADATA}/32 dev lo")
    command(world.node, f"ip route add {METADATA} via {CLIENT}")
    on_node(world, Closed(), closed)
    on_node(world, Closed(metadata=False), opened)


def test_ports_of_agents_are_closed_to_pods_and_open_to_others(world: World) -> None:
    async def scenario(pods: Pods) -> None:
        world.serve(world.node, "metrics", "0.0.0.0", 9100)
        world.serve(world.node, "other", "0.0.0.0", 9101)
        world.serve(world.client, "metrics-of-another", CLIENT, 9100)
        for address in (NODE, GATEWAY, CLIENT):
            with pytest.raises(ConnectionRefusedError):
                ask(pods.a, address, 9100)
        assert ask(pods.a, NODE, 9101) == ("other", A)
        assert ask(world.client, NODE, 9100)[0] == "metrics"
        assert ask(world.node, NODE, 9100)[0] == ask(world.node, GATEWAY, 9100)[0] == "metrics"

    on_node(world, AGENT, scenario)


@pytest.mark.parametrize(
    "damage",
    [
        "nft flush ruleset",
        "nft delete table bridge podplane",
        "nft flush chain ip podplane closed",
        f"ip link delete {BRIDGE}",
        f"ip link set {BRIDGE} down",
        "ip route flush proto 112",
        "sysctl -w net.ipv4.ip_forward=0",
    ],
)
def test_what_others_take_apart_is_put_together_at_the_next_look(world: World, damage: str) -> None:
    async def scenario(pods: Pods) -> None:
        world.serve(world.client, "outside", CLIENT, 80)
        rules, routes = command(world.node, "nft list ruleset"), command(world.node, "ip route show proto 112")
        command(world.node, damage)
        await pods.network.keep()
        assert (pods.network.problem, pods.network.route_problems) == (None, {})
        assert command(world.node, "nft list ruleset") == rules
        assert command(world.node, "ip route show proto 112") == routes
        assert ask(pods.a, CLIENT, 80) == ("outside", NODE)

    on_node(world, Closed(), scenario)


def test_settings_that_change_with_forwarding_are_given_back_as_they_were(world: World) -> None:
    async def scenario(pods: Pods) -> None:
        assert command(world.node, "sysctl -n net.ipv4.conf.up0.forwarding").strip() == "1"
        assert command(world.node, "cat /proc/sys/net/ipv4/conf/up0.7/forwarding").strip() == "1"

    command(world.node, "ip link add up0.7 type veth peer name other0")
    for name, value in (("all.accept_redirects", 0), ("up0.forwarding", 1), ("default.forwarding", 1)):
        command(world.node, f"sysctl -w net.ipv4.conf.{name}={value}")
    before = command(world.node, "sysctl net.ipv4.conf")
    on_node(world, Closed(), scenario)
    assert command(world.node, "sysctl net.ipv4.conf") == before


def test_a_look_that_finds_all_in_place_runs_no_program(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(pods: Pods) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        await pods.network.keep()
        assert pods.network.problem is None
        monkeypatch.undo()

    on_node(world, Closed(), scenario)


def test_what_stands_in_the_way_is_the_problem_until_it_goes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        network = await Network.open(world.directory)
        try:
            monkeypatch.setenv("PATH", "/nowhere")
            await network.configure(PODS, {}, CLUSTER)
            assert "nft is not installed" in str(network.problem)
            monkeypatch.undo()
            await network.keep()
            assert network.problem is None
            for route in (f"10.77.1.128/25 via {CLIENT}", "10.0.0.0/8 dev up0"):
                command(world.node, f"ip route add {route}")
                await network.keep()
                assert f"overlaps its route to {route.split()[0]} on up0" in str(network.problem)
                command(world.node, f"ip route delete {route}")
            command(world.node, f"ip route add 10.0.0.0/8 via {CLIENT}")  # a wider one is no harm
            await network.keep()
            assert network.problem is None
            command(world.node, "ip address flush dev up0")
            await network.keep()
            assert "no interface has an IPv4 address" in str(network.problem)
            command(world.node, f"ip address add {NODE}/24 dev up0")
            await network.keep()
            assert network.problem is None
        finally:
            await network.cleanup()
            network.close()

    inside(world.node, lambda: asyncio.run(run()))
