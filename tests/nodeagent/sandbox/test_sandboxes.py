"""Sandboxes of the real kernel: what stands, what is found again, and that nothing is left."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from nodeagent import syscalls
from nodeagent.sandbox import sysctl
from nodeagent.sandbox.network import BRIDGE, SETTINGS, Network, Settings, host_link
from nodeagent.sandbox.sandboxes import Sandboxes, SandboxFailure
from nodeagent.types import SandboxRequest
from tests.net.kernel import CLIENT, World, ask, assert_unchanged, command, in_thread, inside, traces, until

PODS, CLUSTER = "10.77.1.0/24", "10.77.0.0/16"
A = SandboxRequest("pod-a", 0, "alpha", "10.77.1.2", sysctls={"net.ipv4.ip_unprivileged_port_start": "7"})
B = SandboxRequest("pod-b", 3, "beta", "10.77.1.3")


def on_node(
    world: World, scenario: Callable[[Sandboxes, Network], Awaitable[None]], settings: Settings = SETTINGS
) -> None:
    """Run a scenario on the node and check that its cleanup leaves what was there before."""

    async def run() -> None:
        network = await Network.open(world.directory, settings)
        await network.configure(PODS, {}, CLUSTER)
        assert network.problem is None
        sandboxes = Sandboxes(world.directory, network)
        try:
            await scenario(sandboxes, network)
        finally:
            await sandboxes.cleanup()
            await network.cleanup()
            network.close()

    before = traces(world.node, world.directory)
    inside(world.node, lambda: asyncio.run(run()))
    assert_unchanged(world.node, world.directory, before)


def test_two_pods_reach_each_other_and_the_gateway(world: World) -> None:
    async def scenario(sandboxes: Sandboxes, network: Network) -> None:
        a, b = await sandboxes.create(A), await sandboxes.create(B)
        assert a.net is not None
        assert b.net is not None
        world.serve(b.net, "b", "10.77.1.3", 80)
        world.serve(world.node, "gateway", "10.77.1.1", 80)
        assert ask(a.net, "10.77.1.3", 80) == ("b", "10.77.1.2")
        assert ask(a.net, "10.77.1.1", 80) == ("gateway", "10.77.1.2")
        world.serve(a.net, "loopback", "127.0.0.1", 81)
        assert ask(a.net, "127.0.0.1", 81) == ("loopback", "127.0.0.1")
        world.close_sockets()

    on_node(world, scenario)


def test_what_a_pod_gets(world: World) -> None:
    async def scenario(sandboxes: Sandboxes, network: Network) -> None:
        a = await sandboxes.create(A)
        assert a.net is not None
        assert a.uts is not None
        assert a.shm is not None
        assert inside(a.net, lambda: sysctl.read("net.ipv4.ip_unprivileged_port_start")) == "7"
        assert command(a.net, f"nsenter --uts={a.uts} hostname").strip() == "alpha"
        assert os.statvfs(a.shm).f_frsize * os.statvfs(a.shm).f_blocks == 64 * 1024 * 1024
        assert a.shm.stat().st_mode & 0o7777 == 0o1777
        eth0 = command(a.net, "ip -o -4 address show dev eth0")
        assert "10.77.1.2/24" in eth0
        assert f"mtu {network.uplink.mtu}" in command(a.net, "ip -o link show dev eth0")
        port = command(world.node, f"ip -o -d link show {host_link('pod-a', 0)}")
        assert f"master {BRIDGE}" in port
        assert "hairpin on" in port

    on_node(world, scenario)


def test_done_again_it_is_found_done_by_this_agent_and_the_next(world: World) -> None:
    async def scenario(sandboxes: Sandboxes, network: Network) -> None:
        first = await sandboxes.create(A)
        assert first.net is not None
        inode = first.net.stat().st_ino
        again, at_once = await asyncio.gather(sandboxes.create(A), sandboxes.create(A))
        assert first == again == at_once
        successor = Sandboxes(world.directory, network)
        assert await successor.list() == [first]
        assert await successor.create(A) == first
        assert first.net.stat().st_ino == inode
        assert await successor.half_made() == []

    on_node(world, scenario)


@pytest.mark.parametrize("lost", ["made", "net", "uts", "shm", "eth0", "port", "foreign address"])
def test_half_made_ones_are_not_listed_and_can_be_finished(world: World, lost: str) -> None:
    async def scenario(sandboxes: Sandboxes, network: Network) -> None:
        a = await sandboxes.create(A)
        assert a.net is not None
        home = a.net.parent
        if lost == "eth0":
            command(a.net, "ip link delete eth0")
        elif lost == "port":
            command(world.node, f"ip link set {host_link('pod-a', 0)} nomaster")
        elif lost == "foreign address":
            command(a.net, "ip address add 10.77.1.99/24 dev eth0")
        elif lost != "made":
            syscalls.umount2(home / lost, syscalls.MNT_DETACH)
        (home / "made").unlink()
        assert await sandboxes.list() == []
        assert await sandboxes.half_made() == [("pod-a", 0)]
        whole = await sandboxes.create(A)
        assert await sandboxes.list() == [whole]
        assert whole.net is not None
        world.serve(world.node, "gateway", "10.77.1.1", 80)
        assert ask(whole.net, "10.77.1.1", 80) == ("gateway", "10.77.1.2")
        assert "10.77.1.99" not in command(whole.net, "ip address")
        world.close_sockets()

    on_node(world, scenario)


@pytest.mark.parametrize("left", ["directory", "net", "everything but the mark"])
def test_half_made_ones_can_be_removed(world: World, left: str) -> None:
    async def scenario(sandboxes: Sandboxes, network: Network) -> None:
        a = await sandboxes.create(A)
        assert a.net is not None
        home = a.net.parent
        (home / "made").unlink()
        if left != "everything but the mark":
            for name in ("uts", "ipc", "shm") + (("net",) if left == "directory" else ()):
                syscalls.umount2(home / name, syscalls.MNT_DETACH)
        await sandboxes.remove("pod-a", 0)
        await sandboxes.remove("pod-a", 0)
        assert not home.exists()
        assert await sandboxes.half_made() == []

    on_node(world, scenario)


def test_removal_takes_the_link_even_if_something_keeps_the_namespace(world: World) -> None:
    async def scenario(sandboxes: Sandboxes, network: Network) -> None:
        a = await sandboxes.create(A)
        assert a.net is not None
        holder = inside(a.net, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        await sandboxes.remove("pod-a", 0)
        link = host_link("pod-a", 0)
        assert link in command(world.node, "ip -o link")
        await asyncio.to_thread(until, lambda: link not in command(world.node, "ip -o link"), "the link goes")
        holder.close()

    on_node(world, scenario)


def test_a_pod_may_share_the_nodes_network_and_ipc(world: World) -> None:
    async def scenario(sandboxes: Sandboxes, network: Network) -> None:
        net = await sandboxes.create(SandboxRequest("host-net", 0, "x", None, host_network=True))
        assert (net.net, net.uts) == (None, None)
        assert net.ipc is not None
        both = await sandboxes.create(SandboxRequest("host-both", 0, "x", None, host_network=True, host_ipc=True))
        assert (both.net, both.uts, both.ipc) == (None,) * 3
        assert both.shm == Path("/dev/shm")
        assert await sandboxes.list() == [both, net]

    on_node(world, scenario)


@pytest.mark.parametrize(
    ("name", "host"),
    [("kernel.panic", False), ("vm.swappiness", False), ("net.ipv4.tcp_syncookies", True), ("../x", False)],
)
def test_a_sysctl_that_is_not_the_pods_is_refused(tmp_path: Path, name: str, host: bool) -> None:
    request = SandboxRequest("pod", 0, "x", None if host else "10.77.1.2", host_network=host, sysctls={name: "1"})
    with pytest.raises(SandboxFailure, match="forbidden sysctl"):
        asyncio.run(Sandboxes(tmp_path, None).create(request))
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_failure_says_why(world: World) -> None:
    async def run() -> None:
        network = await Network.open(world.directory)
        assert network.problem is not None
        sandboxes = Sandboxes(world.directory, network)
        with pytest.raises(SandboxFailure, match="pod range"):
            await sandboxes.create(A)
        assert await sandboxes.half_made() == [("pod-a", 0)]
        await sandboxes.cleanup()
        network.close()

    inside(world.node, lambda: asyncio.run(run()))


def test_pins_do_not_travel_to_other_mount_namespaces(tmp_path: Path) -> None:
    def shared_then_pinned() -> bool:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount(None, "/", None, syscalls.MS_PRIVATE | syscalls.MS_REC)
        syscalls.mount(tmp_path, tmp_path, None, syscalls.MS_BIND)
        syscalls.mount(None, tmp_path, None, syscalls.MS_SHARED)
        from nodeagent.sandbox import namespaces

        namespaces.ensure_private(tmp_path / "sandboxes")
        namespaces.ensure_private(tmp_path / "sandboxes")
        lines = Path("/proc/thread-self/mountinfo").read_text().splitlines()
        mounts = [line for line in lines if f" {tmp_path}/sandboxes " in line]
        namespaces.release_private(tmp_path / "sandboxes")
        namespaces.release_private(tmp_path)  # somebody else's: it stays
        left = Path("/proc/thread-self/mountinfo").read_text()
        went = f" {tmp_path}/sandboxes " not in left and f" {tmp_path} " in left
        return went and len(mounts) == 1 and "shared:" not in mounts[0]

    assert in_thread(shared_then_pinned)


def test_routes_follow_the_other_nodes_and_spare_foreign_ones(world: World) -> None:
    async def scenario(sandboxes: Sandboxes, network: Network) -> None:
        command(world.node, f"ip route add 10.99.0.0/24 via {CLIENT}")
        await network.set_routes({"10.77.2.0/24": CLIENT, "10.77.3.0/24": "198.18.0.7", PODS: CLIENT})
        await network.set_routes({"10.77.2.0/24": "198.18.0.9", "10.77.4.0/24": "192.0.2.77", "10.77.5.0/24": CLIENT})
        routes = command(world.node, "ip route show proto 112").splitlines()
        assert sorted(route.split(" dev")[0] for route in routes) == [
            "10.77.2.0/24 via 198.18.0.9",
            f"10.77.5.0/24 via {CLIENT}",
        ]
        assert list(network.route_problems) == ["10.77.4.0/24"]
        await network.set_routes({"10.77.2.0/24": CLIENT, "10.99.0.0/24": "198.18.0.9"})
        assert "File exists" in network.route_problems["10.99.0.0/24"]
        assert f"10.99.0.0/24 via {CLIENT}" in command(world.node, "ip route")
        await network.set_routes({"10.77.2.0/24": "not an address"})
        assert "not an address" in network.route_problems["10.77.2.0/24"]
        await network.set_routes({})
        assert command(world.node, "ip route show proto 112") == ""
        assert "10.99.0.0/24" in command(world.node, "ip route")
        command(world.node, "ip route delete 10.99.0.0/24")

    on_node(world, scenario, Settings(tunnel="never"))


def test_a_bridge_that_others_have_changed_is_mended(world: World) -> None:
    async def scenario(sandboxes: Sandboxes, network: Network) -> None:
        command(world.node, f"ip link set {BRIDGE} down")
        command(world.node, f"ip address flush dev {BRIDGE}")
        command(world.node, f"ip address add 10.1.1.1/24 dev {BRIDGE}")
        command(world.node, "sysctl -w net.ipv4.ip_forward=0")
        await network.configure(PODS, {}, CLUSTER)
        assert network.problem is None
        shown = command(world.node, f"ip -o -4 address show dev {BRIDGE}")
        assert "10.77.1.1/24" in shown
        assert "10.1.1.1" not in shown
        assert "UP" in command(world.node, f"ip -o link show {BRIDGE}").split(">")[0]
        assert command(world.node, "sysctl -n net.ipv4.ip_forward").strip() == "1"

    on_node(world, scenario)


def test_a_link_of_that_name_that_is_no_bridge_is_the_problem_and_stays(world: World) -> None:
    async def run() -> None:
        network = await Network.open(world.directory)
        await network.configure(PODS, {}, CLUSTER)
        assert "is not a bridge" in str(network.problem)
        await network.cleanup()
        network.close()

    command(world.node, f"ip link add {BRIDGE} type veth peer name other0")
    before = traces(world.node, world.directory)
    inside(world.node, lambda: asyncio.run(run()))
    assert_unchanged(world.node, world.directory, before)


def test_the_uplink_is_the_given_address_or_the_default_route(world: World) -> None:
    async def uplink(node_ip: str | None) -> tuple[str, str]:
        network = await Network.open(world.directory, Settings(node_ip))
        try:
            return network.uplink.name, str(network.uplink.address)
        finally:
            network.close()

    command(world.node, "ip link add aaa0 type bridge")
    command(world.node, "ip address add 203.0.113.5/24 dev aaa0")
    assert inside(world.node, lambda: asyncio.run(uplink(None))) == ("up0", "198.18.0.1")
    assert inside(world.node, lambda: asyncio.run(uplink("203.0.113.5"))) == ("aaa0", "203.0.113.5")
    with pytest.raises(SandboxFailure, match=r"192\.0\.2\.1"):
        inside(world.node, lambda: asyncio.run(uplink("192.0.2.1")))
