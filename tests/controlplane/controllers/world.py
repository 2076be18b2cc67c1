"""A control plane without its doors: the real store, cache and objects, and nodes that are played by a test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from controlplane.api.admission import Admission
from controlplane.controllers.facts import is_terminating, key_of
from controlplane.controllers.loop import follow
from controlplane.objects import Objects
from controlplane.store.cache import WatchCache
from controlplane.store.sqlite import SqliteLog
from controlplane.store.stored import Event
from podplane.errors import NotFound
from podplane.kinds import NODE, POD
from podplane.v1 import namespace_pb2, node_pb2, pod_pb2

T = TypeVar("T")


class World:
    """The objects, and the tasks that a test runs over them."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self._tasks: list[asyncio.Task[Any]] = []

    def start(self, running: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run it until the test ends."""
        task = asyncio.get_running_loop().create_task(running)
        self._tasks.append(task)
        return task

    async def stop(self, task: asyncio.Task[Any]) -> None:
        """End one task, as a restart does."""
        self._tasks.remove(task)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def close(self) -> None:
        for task in list(self._tasks):
            await self.stop(task)

    async def until(self, probe: Callable[[], T | None], seconds: float = 10.0) -> T:
        """The first true value of the probe; a task that failed meanwhile raises here."""
        deadline = time.monotonic() + seconds
        while not (value := probe()):
            for task in self._tasks:
                if task.done():
                    task.result()
            assert time.monotonic() < deadline, f"not within {seconds} s; the last value was {value!r}"
            await asyncio.sleep(0.005)
        return value

    async def settled(self) -> int:
        """The revision at which nothing has been written for 0.3 s."""
        loop = asyncio.get_running_loop()
        revision, since, deadline = self.objects.cache.revision, loop.time(), loop.time() + 10
        while loop.time() - since < 0.3:
            await asyncio.sleep(0.01)
            if self.objects.cache.revision != revision:
                revision, since = self.objects.cache.revision, loop.time()
            assert loop.time() < deadline, "it never settles"
        return revision

    def pods(self) -> list[pod_pb2.Pod]:
        return self.objects.list(POD)

    async def play_nodes(self, refuses: Callable[[pod_pb2.Pod], bool] = lambda pod: False) -> None:
        """Be the agents: bind what has no node, make it ready unless refused, confirm what has to go."""
        group = set[asyncio.Task[None]]()

        def take(pod: pod_pb2.Pod) -> None:
            task = asyncio.get_running_loop().create_task(self._play(pod, refuses(pod)))
            group.add(task)
            task.add_done_callback(group.discard)

        def deliver(event: Event) -> None:
            if event.type != "DELETED":
                take(event.stored.obj)

        def restart() -> None:
            for pod in self.pods():
                take(pod)

        await follow(self.objects, POD, deliver, restart)

    async def _play(self, pod: pod_pb2.Pod, refused: bool) -> None:
        with suppress(NotFound):
            if is_terminating(pod):
                await self.objects.remove(POD, *key_of(pod), pod.metadata.uid)
            elif not pod.spec.nodeName:
                await self.objects.bind(*key_of(pod), "node-1", uid=pod.metadata.uid)
            elif pod.status.phase != "Running":
                await self.set_ready(pod, not refused)

    async def set_ready(self, pod: pod_pb2.Pod, ready: bool = True) -> None:
        """The pod runs, and is ready or not."""

        def change(live: pod_pb2.Pod) -> bool:
            live.status.phase, live.status.podIP = "Running", f"10.244.0.{1 + len(self.pods())}"
            for type in ("Ready", "ContainersReady"):
                found = next((c for c in live.status.conditions if c.type == type), None)
                condition = found or live.status.conditions.add(type=type)
                condition.status = "True" if ready else "False"
                condition.lastTransitionTime.GetCurrentTime()
            return True

        await self.objects.mutate(POD, *key_of(pod), change, status=True)

    async def add_node(self, name: str, cpu: str = "4", pods: str = "110", **labels: str) -> node_pb2.Node:
        """A ready node."""
        await self.objects.create(node(name, cpu=cpu, pods=pods, **labels))

        def change(live: node_pb2.Node) -> bool:
            for key, value in (("cpu", cpu), ("memory", "8Gi"), ("pods", pods), ("ephemeral-storage", "20Gi")):
                live.status.allocatable[key] = value
            live.status.conditions.add(type="Ready", status="True", reason="AgentReady")
            return True

        made: node_pb2.Node = await self.objects.mutate(NODE, "", name, change, status=True)
        return made


def node(name: str, *, cpu: str = "4", memory: str = "8Gi", pods: str = "110", **labels: str) -> node_pb2.Node:
    """A node with room."""
    made = node_pb2.Node(apiVersion="v1", kind="Node")
    made.metadata.name = name
    made.metadata.labels.update(labels)
    for key, value in (("cpu", cpu), ("memory", memory), ("pods", pods), ("ephemeral-storage", "20Gi")):
        made.status.allocatable[key] = value
    return made


def pod(name: str, *, namespace: str = "default", cpu: str = "", memory: str = "", **labels: str) -> pod_pb2.Pod:
    """A pod of one container."""
    made = pod_pb2.Pod(apiVersion="v1", kind="Pod")
    made.metadata.name, made.metadata.namespace = name, namespace
    made.metadata.labels.update(labels)
    container = made.spec.containers.add(name="main", image="host")
    if cpu:
        container.resources.requests["cpu"] = cpu
    if memory:
        container.resources.requests["memory"] = memory
    return made


@asynccontextmanager
async def open_world(directory: Path) -> AsyncIterator[World]:
    """A world over a new store, with the namespace `default`."""
    log = await SqliteLog.open(directory)
    cache = await WatchCache.open(log)
    world = World(Objects(log, cache, Admission(), time.time))
    namespace = namespace_pb2.Namespace(apiVersion="v1", kind="Namespace")
    namespace.metadata.name = "default"
    try:
        await world.objects.create(namespace)
        yield world
    finally:
        await world.close()
        cache.close()
        await log.close()
