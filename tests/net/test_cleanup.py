"""`podplane-nodeagent cleanup`, the program, on a node that has everything: what is left is what was there before."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from nodeagent.joining import CannotStart, hold_network, refuse_beside_agent
from nodeagent.proxy.mode import Wanted
from nodeagent.proxy.modes import KINDS
from nodeagent.proxy.nftables.table import TABLE
from nodeagent.proxy.services import ports_of
from nodeagent.proxy.sync import ProxySync
from nodeagent.runtime.cgroups import Cgroups
from nodeagent.sandbox.network import Network, Settings
from nodeagent.sandbox.sandboxes import Sandboxes
from nodeagent.types import SandboxRequest
from tests.net.conftest import missing
from tests.net.kernel import World, command, inside
from tests.net.proxied import CLUSTER, PACE, PODS, RANGES, A, B, Node, empty, flavours, proxied, virtual_servers, web
from tests.support.waiting import patient

FAR_PODS, FAR = "10.77.3.0/24", "203.0.113.77"
CGROUP = f"podplane-test-{os.getpid()}"
PROGRAM = Path(sys.executable).parent / "podplane-nodeagent"
FOREIGN = """
table inet firewall {
	set friends { type ipv4_addr; elements = { 192.0.2.1, 192.0.2.2 } }
	chain input { type filter hook input priority 5; policy accept; ip saddr @friends accept; }
}
"""
_UNSTEADY = ("nf_conntrack_count", "nf_conntrack_buckets", "nf_conntrack_max", "nf_conntrack_expect_max")


def everything(pin: Path) -> dict[str, list[str]]:
    """All that a network namespace has of rules, links, addresses, routes and settings; without counters."""
    found = {
        "nft": command(pin, "nft -s list ruleset"),
        "links": _without_carrier(command(pin, "ip -d link")),
        "addresses": _without_carrier(command(pin, "ip -4 address")),
        "routes": command(pin, "ip -4 route show table all"),
        "routing rules": command(pin, "ip -4 rule"),
        "settings": settings(pin),
        "virtual servers": "\n".join(virtual_servers(pin)),
    }
    for flavour in flavours(pin):
        found[f"iptables-{flavour}"] = re.sub(r"(?m)^#.*\n|\[\d+:\d+\]", "", command(pin, f"iptables-{flavour}-save"))
    return {what: text.splitlines() for what, text in found.items()}


def _without_carrier(text: str) -> str:
    """The kernel notes up to a second late that a link's other end is up."""
    return re.sub(r"NO-CARRIER,|,LOWER_UP| state [A-Z]+", "", text)


def settings(pin: Path) -> str:
    done = inside(
        pin, lambda: subprocess.run(["sysctl", "-a"], capture_output=True, text=True, timeout=patient(60), check=False)
    )
    kept = (line for line in done.stdout.splitlines() if line.startswith("net.") and "neigh" not in line)
    return "\n".join(line for line in kept if not any(f".{name} " in line for name in _UNSTEADY))


async def build(world: World, pods: Mapping[str, str]) -> None:
    """What agents in every mode, one after the other, would leave if they were killed: all of it at once."""
    network = await Network.open(world.directory / "run", Settings(tunnel="always"))
    try:
        await network.configure(PODS, {FAR_PODS: FAR}, CLUSTER)
        assert network.problem is None
        sandboxes = Sandboxes(world.directory / "run", network)
        for name, address in pods.items():
            await sandboxes.create(SandboxRequest(f"pod-{name}", 0, name, address))
    finally:
        network.close()
    world.mode = "iptables"
    node = Node(world, ProxySync(world.mode, world.directory / "run", PACE), {})
    async with proxied(node):
        assert await node.program([web()[0], empty()], [web(A, B)[1]]) == ""
    services = {"default/web": ports_of(web()[0], [web(A, B)[1]], "node-1")}
    for kind in KINDS:
        if kind.name != world.mode and not missing(kind.name):
            mode = await kind.open("rr", world.directory / "run")
            assert await mode.apply(Wanted(RANGES, services)) == {}
            await mode.close()


def directories(world: World, base: str) -> list[Path | str]:
    return ["--run-dir", world.directory / base / "run", "--state-dir", world.directory / base / "state"]


def clean(world: World, base: str = "", *, status: int = 0) -> str:
    """Run the program; what it says. base: of the directories that it is given."""
    argv = [PROGRAM, "cleanup", *directories(world, base), "--cgroup-root", CGROUP]
    done = subprocess.run(
        ["nsenter", f"--net={world.node}", *map(str, argv)],
        capture_output=True,
        text=True,
        timeout=patient(60),
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done.stderr


@pytest.mark.parametrize("owner", ["nobody", "iptables-nft", "iptables-legacy"])
def test_cleanup_leaves_what_was_there_before(world: World, owner: str) -> None:
    """owner: who had rules on the node before us."""
    if owner != "nobody":
        command(world.node, f"{owner} -t nat -A POSTROUTING -s 203.0.113.0/24 -j RETURN")
        command(world.node, f"{owner} -A FORWARD -s 203.0.113.9 -j DROP")
        command(world.node, "nft -f -", FOREIGN)
    has_ipvs = not missing("ipvs")  # asked before: it loads the module, whose settings stay
    before = everything(world.node)
    inside(world.node, lambda: asyncio.run(build(world, {"a": A, "b": B})))
    there = everything(world.node)
    assert any("podplane-services" in line for line in there["nft"])
    assert any("podplane-vxlan" in line for line in there["links"])
    assert any("podplane-ipvs0" in line for line in there["links"]) == has_ipvs
    assert bool(there["virtual servers"]) == has_ipvs
    assert any("PODPLANE-SVC" in line for what in there for line in there[what])
    clean(world)
    after = everything(world.node)
    for what in before:
        assert after[what] == before[what], what
    assert not (world.directory / "run").exists()
    assert not (world.directory / "state").exists()


def test_what_the_kernel_has_goes_though_both_directories_are_gone(world: World) -> None:
    before = everything(world.node)
    inside(world.node, lambda: asyncio.run(build(world, {})))
    shutil.rmtree(world.directory / "run")
    rules = everything(world.node)["nft"]
    cgroups = Cgroups.detect()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as pod:
        cgroups.create(f"{CGROUP}/pod")
        cgroups.enter(f"{CGROUP}/pod", pod.pid)
        assert "1 processes run in the cgroup" in clean(world, status=1)
        assert everything(world.node)["nft"] == rules
        pod.communicate()
    # A rule of somebody else's that leads to ours keeps a chain.
    command(world.node, "iptables-nft -t nat -A OUTPUT -d 203.0.113.9 -j PODPLANE-SERVICES")
    said = clean(world, status=1)
    assert "left over: rules" in said
    assert "net.ipv4.ip_forward=1" in said
    assert ("net.ipv4.vs.conntrack=1" in said) == (not missing("ipvs"))
    command(world.node, "iptables-nft -t nat -D OUTPUT -d 203.0.113.9 -j PODPLANE-SERVICES")
    clean(world)
    assert not any(map(os.path.exists, cgroups.paths(CGROUP)))
    after = everything(world.node)
    for what in before.keys() - {"settings"}:
        assert after[what] == before[what], what
    assert not (world.directory / "run").exists()
    assert not (world.directory / "state").exists()
    assert "net.ipv4" not in clean(world)


def test_cleanup_refuses_beside_an_agent_that_has_other_directories(world: World) -> None:
    token = world.directory / "token"
    token.write_text(f"{'0' * 64}.id.secret")
    command(world.node, f"nft add table ip {TABLE}")
    with inside(world.node, lambda: socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(patient(30))
        argv = [PROGRAM, "run", *directories(world, "elsewhere"), "--token-file", token]
        argv += ["--join", f"127.0.0.1:{server.getsockname()[1]}", "--node-name", "node-1", "--cgroup-root", CGROUP]
        agent = subprocess.Popen(["nsenter", f"--net={world.node}", *map(str, argv)])
        try:
            with server.accept()[0]:  # it joins, and gets no answer until it is looked at
                said = clean(world, status=1)
                assert f"an agent runs in this network namespace (process {agent.pid}): end it first" in said
                assert f"table ip {TABLE}" in command(world.node, "nft list tables")
            server.close()
            assert agent.wait(patient(30)) == 1
        finally:
            agent.kill()
            agent.wait()
    clean(world, "elsewhere")
    assert command(world.node, "nft list tables") == ""


def test_whoever_locks_a_network_stops_a_cleanup_and_no_agent(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def scenario() -> None:
        os.close(hold_network())
        assert caplog.messages == []
        refuse_beside_agent()
        with world.node.open() as network:
            fcntl.flock(network, fcntl.LOCK_EX)
            os.close(hold_network())
            with pytest.raises(CannotStart, match=f"process {os.getpid()}"):
                refuse_beside_agent()

    inside(world.node, scenario)
    assert f"cannot lock the network namespace (process {os.getpid()})" in caplog.text


def test_cleanup_keeps_chains_that_somebody_has_begun_to_use(world: World) -> None:
    inside(world.node, lambda: asyncio.run(build(world, {"a": A, "b": B})))
    command(world.node, "iptables-nft -t nat -A OUTPUT -d 203.0.113.9 -j RETURN")
    command(world.node, "iptables-nft -P FORWARD DROP")
    clean(world)
    left = [line.strip() for line in everything(world.node)["nft"] if line.strip() not in ("", "}")]
    assert left == [
        "table ip nat {",
        "chain OUTPUT {",
        "type nat hook output priority -100; policy accept;",
        "ip daddr 203.0.113.9 counter return",
        "table ip filter {",
        "chain FORWARD {",
        "type filter hook forward priority filter; policy drop;",
    ]
