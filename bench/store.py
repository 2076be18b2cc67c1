"""The control plane's API: durable writes, scheduling and fan-out, each through gRPC with TLS and a token.

Every write is admitted and synced to disk before it is answered. The clients run on the same cores as the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import uvloop

from bench import load
from bench.peers import etcd
from bench.peers.base import Skipped
from bench.plane import Plane, serving
from bench.results import Row
from podplane.v1 import node_pb2, pod_pb2

COMMAND = "make bench"
ALONE = 500
CLIENTS, EACH = 100, 40
STREAMS = 4
FRAMES, POD_FRAMES = 200, 40
NODES, PODS = 1000, 4000
WATCHERS, EVENTS = 1000, 1500
_CONNECTIONS = 10  # that the watchers share

Figures = dict[str, float]


async def writes(plane: Plane) -> Figures:
    """One client, a hundred, and frames of a hundred; config maps and pods."""
    channels = [plane.channel() for _ in range(CLIENTS)]
    found: Figures = {}
    for name, make, frames in (("ConfigMaps", load.config_map, FRAMES), ("Pods", load.unplaced_pod, POD_FRAMES)):
        wanted = load.requests(make)
        clients = [load.unary(channel, f"/podplane.v1.{name}/Create") for channel in channels]
        await asyncio.gather(*(send(next(wanted)) for send in clients))  # connected, and warm
        found[f"{name}-alone"] = await load.alone(clients[0], wanted, ALONE)
        found[f"{name}-together"] = await load.together(clients, wanted, EACH)
        ready = load.create_frames(make, frames)
        found[f"{name}-frames"] = frames * 100 / await load.seconds(load.send_frames(channels[:STREAMS], ready))
    await asyncio.gather(*(channel.close() for channel in channels))
    return found


async def scheduling(plane: Plane) -> Figures:
    """Pods a second, from the first frame of creates to the last binding in a watch."""
    channel = plane.channel()
    nodes = [load.node(f"node-{number}") for number in range(NODES)]
    for verb in ("create", "updateStatus"):
        frames = [load.frame(verb, nodes[at : at + 100]) for at in range(0, NODES, 100)]
        await load.send_frames([channel], frames)
    await _untainted(channel)
    names = {f"placed-{number}" for number in range(PODS)}
    pods = [load.pod(name) for name in sorted(names)]
    frames = [load.frame("create", pods[at : at + 100]) for at in range(0, PODS, 100)]
    seeing = asyncio.create_task(_see_bound(channel, names))
    took = await load.seconds(asyncio.gather(load.send_frames([channel], frames), seeing))
    await channel.close()
    return {"scheduling": PODS / took}


async def _untainted(channel: grpc.aio.Channel) -> None:
    """Until no node has a taint: a new one has, until the node controller has seen it ready."""
    waiting = {f"node-{number}" for number in range(NODES)}
    stream = load.watch(channel, "Nodes", node_pb2.NodeWatchFrame.FromString)
    async with asyncio.timeout(load.DEADLINE):
        async for frame in stream:
            for event in frame.events:
                ready = any(one.type == "Ready" and one.status == "True" for one in event.object.status.conditions)
                if ready and not event.object.spec.taints:
                    waiting.discard(event.object.metadata.name)
            if not waiting:
                break
    stream.cancel()


async def _see_bound(channel: grpc.aio.Channel, names: set[str]) -> None:
    stream = load.watch(channel, "Pods", pod_pb2.PodWatchFrame.FromString, namespace="default")
    async with asyncio.timeout(load.DEADLINE):
        async for frame in stream:
            names -= {event.object.metadata.name for event in frame.events if event.object.spec.nodeName}
            if not names:
                break
    stream.cancel()


async def fan_out(plane: Plane) -> Figures:
    """Events a second over all watchers, while one more watcher reads nothing."""
    channels = [plane.channel() for _ in range(_CONNECTIONS)]
    streams = [
        load.watch(channels[at % _CONNECTIONS], "ConfigMaps", load.raw, namespace="default")
        for at in range(WATCHERS + 1)
    ]
    await asyncio.gather(*(stream.read() for stream in streams))  # the bookmark: from here on
    stuck = streams.pop()
    writer = plane.channel()
    sending = load.send_frames([writer], load.create_frames(load.config_map, EVENTS // 100))
    took = await load.seconds(asyncio.gather(sending, *map(_count, streams)))
    stuck.cancel()
    await asyncio.gather(*(channel.close() for channel in (writer, *channels)))
    return {"fan-out": WATCHERS * EVENTS / took}


async def _count(stream: Any) -> None:
    seen = 0
    async with asyncio.timeout(load.DEADLINE):
        while seen < EVENTS:
            data = await stream.read()
            if not isinstance(data, bytes):
                raise RuntimeError(f"a watch ended after {seen} events: {await stream.details()}")
            seen += load.events_in(data)
    stream.cancel()


CLAIMS = (
    ("ConfigMaps-alone", "durable create, one client, p50", "ms", 1.0, False, "alone"),
    ("ConfigMaps-together", "durable creates, 100 clients", "writes/s", 2500.0, True, "together"),
    ("ConfigMaps-frames", "durable creates, frames of 100", "writes/s", 20_000.0, True, ""),
    ("Pods-alone", "create of a pod, one client, p50", "ms", None, False, ""),
    ("Pods-together", "creates of pods, 100 clients", "pods/s", None, True, ""),
    ("Pods-frames", "creates of pods, frames of 100", "pods/s", None, True, ""),
    ("scheduling", f"Create to bound, {NODES} nodes", "pods/s", 1500.0, True, ""),
    ("fan-out", f"{WATCHERS} watchers, one more stuck", "events/s", 500_000.0, True, ""),
)
"""Our figure, the claim, its unit and goal, whether more is better, and the figure of etcd beside it."""


def run(say: Callable[[str], None]) -> list[Row]:
    """Measure; each part on a control plane of its own."""
    ours: Figures = {}
    for part in (writes, scheduling, fan_out):
        say(f"store: {part.__name__.replace('_', ' ')}")
        with serving() as plane:
            ours |= uvloop.run(part(plane))
    say("store: etcd")
    theirs: Figures = {}
    try:
        theirs = uvloop.run(etcd.measure(CLIENTS, EACH, ALONE))
        name = "etcd, in clear"
    except Skipped as skipped:
        name = str(skipped)
    return [
        Row(claim, unit, ours[key], theirs.get(peer), name if peer else "", goal, more, COMMAND)
        for key, claim, unit, goal, more, peer in CLAIMS
    ]
