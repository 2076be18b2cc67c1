"""Reports that come faster than the store takes them, and reports of a node that has no business with the pod."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane.nodes.reports import WAITING, Reports
from controlplane.store.cache import WatchCache
from controlplane.store.sqlite import SqliteLog
from podplane.kinds import POD
from podplane.tasks import Tasks
from podplane.v1 import pod_pb2, session_pb2
from tests.controlplane.objects.world import World, namespace, pod


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    log = await SqliteLog.open(tmp_path / "store")
    cache = await WatchCache.open(log)
    world = World(log, cache)
    await world.objects.create(namespace("default"))
    yield world
    await log.close()


def report(made: pod_pb2.Pod, sequence: int) -> session_pb2.PodStatusReport:
    found = session_pb2.PodStatusReport(namespace="default", name="web", uid=made.metadata.uid, sequence=sequence)
    found.status.message = str(sequence)
    return found


async def bound(world: World) -> pod_pb2.Pod:
    submitted = pod()
    submitted.spec.nodeName = "node-1"
    return await world.objects.create(submitted)


async def message_of(world: World, wanted: str) -> None:
    async with asyncio.timeout(10):
        while world.objects.get(POD, "default", "web").status.message != wanted:
            await asyncio.sleep(0.001)


async def test_a_flood_of_reports_waits_within_a_bound_and_ends_with_the_newest(world: World) -> None:
    tasks = Tasks()
    reports = Reports(world.objects, tasks, lambda node, gone: None)
    made = await bound(world)
    before = world.cache.revision
    for sequence in range(500):
        reports.take("node-1", "first", report(made, sequence))
    await message_of(world, "499")
    assert world.cache.revision - before <= WAITING + 1
    await tasks.stop()


async def test_the_sequence_of_one_node_silences_no_other(world: World) -> None:
    tasks = Tasks()
    reports = Reports(world.objects, tasks, lambda node, gone: None)
    made = await bound(world)
    reports.take("node-2", "first", report(made, 1_000_000))
    reports.take("node-1", "first", report(made, 1))
    await message_of(world, "1")
    await tasks.stop()
