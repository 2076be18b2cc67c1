"""Nodes behind a router: two segments, one node beside ours and one beyond, real packets of real size.

node 198.18.0.1 ─┐                      ┌─ 198.18.1.1 far
near 198.18.0.3 ─┴─ 198.18.0.2 router ──┘
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nodeagent.sandbox.network import Network, Settings
from nodeagent.sandbox.sandboxes import Sandboxes
from nodeagent.sandbox.tunnel import DEVICE, VNI
from nodeagent.types import SandboxRequest
from tests.net.kernel import CLIENT, NODE, World, ask, assert_unchanged, command, inside, traces, until

CLUSTER = "10.77.0.0/16"
NEAR, FAR, MOVED = "198.18.0.3", "198.18.1.1", "198.18.1.9"
RANGES = {NODE: "10.77.1.0/24", NEAR: "10.77.2.0/24", FAR: "10.77.3.0/24"}
_IP_MTU_DISCOVER, _IP_PMTUDISC_DO = 10, 2


@dataclass
class Machine:
    """A node. Each call is an agent's whole life: the next one adopts what it left."""

    pin: Path
    run: Path
    cidr: str
    settings: Settings = field(default_factory=Settings)
    peers: dict[str, str] = field(default_factory=dict)
    pods: list[str] = field(default_factory=list)
    said: tuple[str | None, dict[str, str]] = (None, {})

    def agent(self, *, pod: str = "", clean: bool = False) -> Path:
        """Set the network up as `peers` has it; make a pod with the address `pod`, or clean up."""

        async def life() -> Path:
            network = await Network.open(self.run, self.settings)
            sandboxes = Sandboxes(self.run, network)
            try:
                if clean:
                    await sandboxes.cleanup()
                    await network.cleanup()
                    return self.run
                await network.configure(self.cidr, self.peers, CLUSTER)
                self.said = (network.problem, dict(network.route_problems))
                if not pod:
                    return self.run
                made = await sandboxes.create(SandboxRequest(f"pod-{pod}", 0, "pod", pod))
                assert made.net is not None
                return made.net
            finally:
                network.close()

        return inside(self.pin, lambda: asyncio.run(life()))


class Segments:
    """The three nodes, and the router between the segments."""

    def __init__(self, world: World) -> None:
        self.world = world
        router = self.router = world.client
        command(router, "sysctl -qw net.ipv4.ip_forward=1")
        command(router, "ip link add br0 type bridge")
        command(router, f"ip address delete {CLIENT}/24 dev up0")
        for line in ("up0 master br0", "br0 up"):
            command(router, f"ip link set {line}")
        command(router, f"ip address add {CLIENT}/24 dev br0")
        near, far = world.namespace("near"), world.namespace("far")
        for pin, name, address, gateway in ((near, "n0", NEAR, CLIENT), (far, "f0", FAR, "198.18.1.2")):
            command(pin, f"ip link add up0 type veth peer name {name} netns {router}")
            command(pin, f"ip address add {address}/24 dev up0")
            command(pin, "ip link set up0 up")
            command(router, f"ip link set {name} up")
            command(pin, f"ip route add default via {gateway}")
        command(router, "ip link set n0 master br0")
        command(router, "ip address add 198.18.1.2/24 dev f0")
        pins = {NODE: world.node, NEAR: near, FAR: far}
        self.node, self.near, self.far = (
            Machine(pin, world.directory / f"run-{address}", RANGES[address]) for address, pin in pins.items()
        )
        self.all = (self.node, self.near, self.far)
        for machine in self.all:
            machine.run.mkdir()
        self._before = [traces(machine.pin, world.directory) for machine in self.all]

    def join(self, *addresses: str) -> None:
        """Let all nodes know these, and each have its agent look."""
        for machine in self.all:
            machine.peers = {RANGES[address]: address for address in addresses}
        for machine in self.all:
            if machine.cidr in machine.peers:
                machine.agent()
                assert machine.said == (None, {})

    def close(self) -> None:
        self.world.close_sockets()
        for machine in self.all:
            machine.agent(clean=True)
        for machine, before in zip(self.all, self._before, strict=True):
            assert_unchanged(machine.pin, self.world.directory, before)


@pytest.fixture
def segments(world: World) -> Iterator[Segments]:
    made = Segments(world)
    yield made
    made.close()


def link_mtu(pin: Path, name: str) -> int:
    return int(command(pin, f"ip -o link show {name}").split(" mtu ")[1].split()[0])


def tables(pin: Path) -> tuple[list[str], list[str], list[str]]:
    """What leads into the tunnel: FDB, neighbours, routes."""
    fdb = sorted(command(pin, f"bridge fdb show dev {DEVICE}").splitlines())
    return fdb, sorted(command(pin, f"ip neigh show dev {DEVICE}").splitlines()), route_lines(pin)


def route_lines(pin: Path) -> list[str]:
    return sorted(line.strip() for line in command(pin, "ip route show proto 112").splitlines())


def meet(segments: Segments) -> None:
    """A pod on each node; each answers each, which it sees under the pod's own address."""
    addresses = ("10.77.1.2", "10.77.2.2", "10.77.3.2")
    pods = {address: machine.agent(pod=address) for machine, address in zip(segments.all, addresses, strict=True)}
    for address, pin in pods.items():
        segments.world.serve(pin, f"on-{address}", address, 80)
        for source, asker in pods.items():
            assert ask(asker, address, 80) == (f"on-{address}", source)
    # A node reaches the pods of others too; far ones under its own end of the tunnel.
    assert ask(segments.node.pin, "10.77.2.2", 80) == ("on-10.77.2.2", NODE)
    assert ask(segments.node.pin, "10.77.3.2", 80) == ("on-10.77.3.2", "10.77.1.0")


def test_nodes_that_take_packets_only_where_they_would_answer_them_meet_as_well(segments: Segments) -> None:
    pins = [machine.pin for machine in segments.all]
    strict = [f"net.ipv4.conf.{name}.rp_filter=1" for name in ("all", "default", "up0")]
    before = [command(pin, "sysctl net.ipv4.conf.all.rp_filter").replace(" ", "") for pin in pins]
    for pin in pins:
        command(pin, f"sysctl -qw {' '.join(strict)}")
    segments.join(NODE, NEAR, FAR)
    meet(segments)
    for pin, value in zip(pins, before, strict=True):
        assert command(pin, "nstat -asz TcpExtIPReversePathFilter").split()[-2:] == ["0", "0.0"]
        command(pin, f"sysctl -qw {value}")


def test_each_pair_of_nodes_takes_its_own_way(segments: Segments) -> None:
    segments.join(NODE, NEAR, FAR)
    assert route_lines(segments.node.pin) == [
        f"10.77.2.0/24 via {NEAR} dev up0",
        f"10.77.3.0/24 via 10.77.3.0 dev {DEVICE} onlink",
    ]
    assert len(route_lines(segments.far.pin)) == 2
    meet(segments)
    # Nothing was learned: the router has seen VXLAN and no pod.
    assert "dst 198.18.1.1" in tables(segments.node.pin)[0][0]
    assert len(tables(segments.node.pin)[0]) == len(tables(segments.node.pin)[1]) == 1


def datagram(pin: Path, target: str, size: int) -> int:
    """Send a datagram of so many bytes, IP header included, that nobody may take apart; the error, 0 for none."""

    def send() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
            sender.connect((target, 9))
            try:
                sender.send(bytes(size - 28))
            except OSError as error:
                return error.errno or -1
            return 0

    return inside(pin, send)


def test_packets_have_the_size_that_the_way_takes(segments: Segments) -> None:
    segments.join(NODE, NEAR)
    old = segments.node.agent(pod="10.77.1.2")
    assert link_mtu(old, "eth0") == 1500
    segments.join(NODE, NEAR, FAR)
    new, there = segments.node.agent(pod="10.77.1.3"), segments.far.agent(pod="10.77.3.2")
    assert (link_mtu(new, "eth0"), link_mtu(segments.node.pin, DEVICE)) == (1450, 1450)
    assert datagram(new, "10.77.3.2", 1451) == errno.EMSGSIZE
    # An older pod is told by the node, packet too big, and goes on with what fits: to this destination alone.
    until(lambda: datagram(old, "10.77.3.2", 1500) == errno.EMSGSIZE, "the old pod learns the size")
    assert datagram(old, "10.77.2.2", 1500) == 0
    taken: list[int] = []
    server = inside(there, lambda: socket.create_server(("10.77.3.2", 81)))
    with server:
        for pin in (old, new):
            with inside(pin, lambda: socket.create_connection(("10.77.3.2", 81), 5)) as sender:
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(10)
                    sender.settimeout(10)
                    sent = 200_000
                    sender.sendall(bytes(sent))
                    got = 0
                    while got < sent:
                        got += len(connection.recv(1 << 16))
                    taken.append(got)
    assert taken == [200_000, 200_000]
    segments.join(NODE, NEAR)
    assert DEVICE not in command(segments.node.pin, "ip -o link show")
    assert link_mtu(segments.node.agent(pod="10.77.1.4"), "eth0") == 1500


def readdress(pin: Path, address: str) -> None:
    """Give a node beyond the router another address."""
    command(pin, "ip address flush dev up0")
    command(pin, f"ip address add {address}/24 dev up0")
    command(pin, "ip route add default via 198.18.1.2")


def test_a_node_that_moves_or_goes_is_followed(segments: Segments) -> None:
    segments.join(NODE, FAR)
    here, there = segments.node.agent(pod="10.77.1.2"), segments.far.agent(pod="10.77.3.2")
    segments.world.serve(there, "there", "10.77.3.2", 80)
    assert ask(here, "10.77.3.2", 80) == ("there", "10.77.1.2")
    readdress(segments.far.pin, MOVED)
    segments.node.peers = segments.far.peers = {RANGES[NODE]: NODE, RANGES[FAR]: MOVED}
    segments.far.agent()
    segments.node.agent()
    assert tables(segments.node.pin)[0] == [f"0a:58:0a:4d:03:00 dst {MOVED} self permanent"]
    assert ask(here, "10.77.3.2", 80) == ("there", "10.77.1.2")
    readdress(segments.far.pin, FAR)
    segments.join(NODE)
    assert route_lines(segments.node.pin) == []
    assert DEVICE not in command(segments.node.pin, "ip -o link show")


DAMAGE = (
    f"bridge fdb delete 0a:58:0a:4d:03:00 dev {DEVICE} dst {FAR}",
    f"bridge fdb replace 0a:58:0a:4d:03:00 dev {DEVICE} dst 198.18.0.99",
    f"bridge fdb append 0a:58:0a:4d:09:00 dev {DEVICE} dst 198.18.0.99",
    f"ip neigh delete 10.77.3.0 dev {DEVICE}",
    f"ip neigh replace 10.77.3.0 lladdr 02:00:00:00:00:01 dev {DEVICE} nud permanent",
    "ip route delete 10.77.3.0/24",
    f"ip route replace 10.77.3.0/24 via {CLIENT} proto 112",
    f"ip address flush dev {DEVICE}",
    f"ip link set {DEVICE} down",
    f"ip link set {DEVICE} mtu 1300",
    f"ip link delete {DEVICE}",
)


def test_what_others_take_from_the_tunnel_is_put_back(segments: Segments) -> None:
    segments.join(NODE, FAR)
    here, there = segments.node.agent(pod="10.77.1.2"), segments.far.agent(pod="10.77.3.2")
    segments.world.serve(there, "there", "10.77.3.2", 80)
    before = tables(segments.node.pin)
    for damage in DAMAGE:
        command(segments.node.pin, damage)
        segments.node.agent()
        assert segments.node.said == (None, {}), damage
        assert tables(segments.node.pin) == before, damage
        assert link_mtu(segments.node.pin, DEVICE) == 1450
        assert ask(here, "10.77.3.2", 80) == ("there", "10.77.1.2")


def test_a_tunnel_of_other_settings_is_made_anew_and_the_same_one_is_kept(segments: Segments) -> None:
    segments.join(NODE, FAR)
    first = command(segments.node.pin, f"ip -o link show {DEVICE}")
    segments.node.agent()
    assert command(segments.node.pin, f"ip -o link show {DEVICE}") == first
    segments.node.settings = Settings(vxlan_port=4789)
    segments.node.agent()
    assert "dstport 4789" in command(segments.node.pin, f"ip -d link show {DEVICE}")
    assert len(route_lines(segments.node.pin)) == 1
    segments.node.settings = Settings(tunnel="never")
    segments.node.agent()
    assert DEVICE not in command(segments.node.pin, "ip -o link show")
    assert "10.77.3.0/24" in segments.node.said[1]


def test_a_link_of_that_name_that_is_no_tunnel_is_the_problem_until_it_goes(segments: Segments) -> None:
    command(segments.node.pin, f"ip link add {DEVICE} type bridge")
    segments.node.peers = {RANGES[FAR]: FAR}
    segments.node.agent()
    assert "is no VXLAN" in str(segments.node.said[0])
    command(segments.node.pin, f"ip link delete {DEVICE}")
    segments.node.agent()
    assert segments.node.said == (None, {})


def test_only_nodes_send_into_the_tunnel(segments: Segments) -> None:
    segments.join(NODE, FAR)
    here = segments.node.agent(pod="10.77.1.2")
    segments.world.serve(here, "here", "10.77.1.2", 80)
    router = segments.router
    command(router, f"ip link add vx type vxlan id {VNI} remote {NODE} dstport 8472 local {CLIENT}")
    command(router, "ip link set vx address 0a:58:0a:4d:04:00 up")
    command(router, "ip address add 10.77.4.0/32 dev vx")
    command(router, "ip route add 10.77.1.0/24 via 10.77.1.0 dev vx onlink")
    command(router, "ip neigh add 10.77.1.0 lladdr 0a:58:0a:4d:01:00 dev vx nud permanent")
    with pytest.raises(TimeoutError):
        ask(router, "10.77.1.2", 80, timeout=0.7)
    # The same sender as a node of the cluster is let in: so it was the rule that kept it out.
    segments.node.settings = Settings(tunnel="always")
    segments.node.peers = {"10.77.4.0/24": CLIENT}
    segments.node.agent()
    assert ask(router, "10.77.1.2", 80) == ("here", "10.77.4.0")
