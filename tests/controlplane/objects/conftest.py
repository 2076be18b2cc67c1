"""The store and the facade that these tests write to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane.objects import Objects
from controlplane.store.cache import WatchCache
from controlplane.store.sqlite import SqliteLog
from tests.controlplane.objects.world import World, namespace


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    log = await SqliteLog.open(tmp_path / "store")
    cache = await WatchCache.open(log)
    world = World(log, cache)
    await world.objects.create(namespace("default"))
    yield world
    cache.close()
    await log.close()


@pytest.fixture
def objects(world: World) -> Objects:
    return world.objects
