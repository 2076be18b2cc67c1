"""Sandboxes made, cancelled and removed all at once: nothing is left, neither in the kernel nor in the agent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
from pathlib import Path

from nodeagent.sandbox.network import Network
from nodeagent.sandbox.sandboxes import Sandboxes
from nodeagent.types import SandboxRequest
from tests.net.kernel import World, assert_unchanged, command, inside, traces, until

PODS, CLUSTER = "10.77.1.0/24", "10.77.0.0/16"


def descriptors() -> set[str]:
    """Files and namespaces of sandboxes that the process has open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return {item for item in found if "/sandboxes/" in item or item.startswith("net:")}


async def disturbed(sandboxes: Sandboxes, request: SandboxRequest, chance: random.Random) -> None:
    """Make it and remove it, over and over, cancelled at some point; then remove it for good."""
    for _ in range(4):
        making = asyncio.create_task(sandboxes.create(request))
        removing = asyncio.create_task(sandboxes.remove(request.pod_uid, request.attempt))
        await asyncio.sleep(chance.random() * 0.01)
        for task in (making, removing):
            if chance.random() < 0.5:
                task.cancel()
        for outcome in await asyncio.gather(making, removing, return_exceptions=True):
            assert not isinstance(outcome, Exception), outcome
    made = await sandboxes.create(request)
    assert made.net is not None
    assert made.net.exists()
    await sandboxes.remove(request.pod_uid, request.attempt)


def test_making_and_removing_at_once_leaves_nothing(world: World, tmp_path: Path) -> None:
    async def run() -> None:
        network = await Network.open(world.directory)
        await network.configure(PODS, {}, CLUSTER)
        sandboxes = Sandboxes(world.directory, network)
        try:
            chance = random.Random(7)
            requests = [SandboxRequest(f"pod-{number}", 0, "x", f"10.77.1.{number + 2}") for number in range(8)]
            await asyncio.gather(*(disturbed(sandboxes, request, chance) for request in requests))
            await asyncio.to_thread(until, lambda: " pp" not in command(world.node, "ip -o link"), "the links go")
            assert await sandboxes.list() == []
            assert await sandboxes.half_made() == []
        finally:
            await sandboxes.cleanup()
            await network.cleanup()
            network.close()

    before, open_before = traces(world.node, world.directory), descriptors()
    inside(world.node, lambda: asyncio.run(run()))
    assert_unchanged(world.node, world.directory, before)
    assert descriptors() == open_before
    assert not [thread.name for thread in threading.enumerate() if "sandbox-" in thread.name]
