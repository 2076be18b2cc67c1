"""Pods of two nodes on one network, and agents that come and go while the pods stay."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path

from nodeagent.proxy.sync import Progress, ProxySync
from nodeagent.sandbox.network import Network
from nodeagent.sandbox.sandboxes import Sandboxes
from nodeagent.types import SandboxRequest
from tests.net.kernel import CLIENT, NODE, World, ask, assert_unchanged, inside, traces
from tests.nodeagent.proxy.objects import Port, by_key, service, slice_of
from tests.support.waiting import patient

CLUSTER = "10.77.0.0/16"
WEB: list[Port] = [("", "TCP", 80, 30080, 8080)]


@dataclass(frozen=True)
class Machine:
    """A namespace that plays a node; each method is an agent's whole life in it."""

    pin: Path
    run: Path
    pod_cidr: str
    other: dict[str, str]

    def agent(self, *, pod: str = "", clean: bool = False) -> Path:
        """Start an agent, make a pod with the address `pod`, or clean up; returns the pod's namespace."""

        async def life() -> Path:
            network = await Network.open(self.run)
            sandboxes = Sandboxes(self.run, network)
            try:
                if clean:
                    await sandboxes.cleanup()
                    await network.cleanup()
                    return self.run
                await network.configure(self.pod_cidr, self.other, CLUSTER)
                assert (network.problem, network.route_problems) == (None, {})
                made = await sandboxes.create(SandboxRequest(f"pod-{pod}", 0, "pod", pod))
                assert made.net is not None
                return made.net
            finally:
                network.close()

        return inside(self.pin, lambda: asyncio.run(life()))

    def proxy(self, mode: str, endpoints: list[str]) -> None:
        """Program one service and go away; with no endpoints: remove all rules."""

        async def life() -> None:
            proxy = ProxySync(mode, self.run)
            if not endpoints:
                await proxy.cleanup()
                return
            done: asyncio.Future[Progress] = asyncio.get_running_loop().create_future()
            proxy.on_programmed(done.set_result)
            proxy.configure(self.pod_cidr, CLUSTER)
            wanted = by_key([service("web", "10.96.0.9", WEB)], [slice_of("web", WEB, endpoints)])
            proxy.update(*wanted, "node-1", revision=1)
            task = asyncio.create_task(proxy.run())
            async with asyncio.timeout(patient(10)):
                assert await done == Progress(1)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        inside(self.pin, lambda: asyncio.run(life()))


def test_pods_of_two_nodes_reach_each_other_and_each_others_services_without_agents(moded: World) -> None:
    world = moded
    one = Machine(world.node, world.directory / "one", "10.77.1.0/24", {"10.77.2.0/24": CLIENT})
    two = Machine(world.client, world.directory / "two", "10.77.2.0/24", {"10.77.1.0/24": NODE})
    before = [traces(machine.pin, world.directory) for machine in (one, two)]
    for machine in (one, two):
        machine.run.mkdir()
    try:
        here, there = one.agent(pod="10.77.1.2"), two.agent(pod="10.77.2.2")
        assert one.agent(pod="10.77.1.2") == here
        world.serve(there, "there", "10.77.2.2", 8080)
        assert ask(here, "10.77.2.2", 8080) == ("there", "10.77.1.2")
        for machine in (one, two):
            machine.proxy(world.mode, ["10.77.2.2"])
        # The endpoint is on the second node: the first one answers for it, to pods under their own address.
        assert ask(here, "10.96.0.9", 80) == ("there", "10.77.1.2")
        assert ask(world.client, NODE, 30080)[0] == "there"
        assert ask(world.node, "127.0.0.1", 30080) == ("there", NODE)
        assert ask(here, CLIENT, 30080)[0] == "there"
    finally:
        world.close_sockets()
        for machine in (one, two):
            machine.proxy(world.mode, [])
            machine.agent(clean=True)
            machine.run.rmdir()
    for machine, found in zip((one, two), before, strict=True):
        assert_unchanged(machine.pin, world.directory, found)
