"""When images go, and which; what is in use, handed out or being pulled stays."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from nodeagent.metrics import Metrics
from nodeagent.runtime import images
from nodeagent.runtime.image import Held, Image
from nodeagent.runtime.image_gc import ImageGc
from nodeagent.runtime.images import ImageStore
from nodeagent.runtime.reclaim import Policy, removable, wanted
from tests.support.archives import Packed, file, pack, tar
from tests.support.hostile import Gate, Hostile

from .conftest import Node

BASE = tar([file("base", random.Random(1).randbytes(100_000))])
AT_ONCE = Policy(high=1, low=0, minimum_age=0)
"""Every machine's disk is fuller than that."""


def held(name: str, used: float) -> Held:
    return Held(Image(name, name), (name,), used, 1)


def test_nothing_goes_below_the_high_threshold_and_then_down_to_the_low_one() -> None:
    policy = Policy(high=85, low=80)
    assert wanted(policy, 1000, 160) == 0
    assert wanted(policy, 1000, 150) == 50
    assert wanted(policy, 1000, 0) == 200
    assert wanted(Policy(high=100, low=80), 1000, 0) == 0
    assert wanted(policy, 0, 0) == 0


def test_the_longest_unused_goes_first_and_what_is_young_or_in_use_stays() -> None:
    known = [held("young", 950.0), held("old", 10.0), held("used", 1.0), held("older", 5.0)]
    found = removable(known, {"used"}, Policy(minimum_age=100), 1000.0)
    assert [one.image.id for one in found] == ["older", "old"]


@pytest.fixture
def registry() -> Iterator[Hostile]:
    registry = Hostile(pack([BASE]))
    yield registry
    registry.close()


@pytest.fixture
async def store(
    node: Node, registry: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ImageStore]:
    monkeypatch.setattr(images, "LEASE", -1.0)
    conf = tmp_path / "registries.conf"
    conf.write_text(registry.conf())
    store = ImageStore(node.state, node.run, registries_conf=conf)
    yield store
    await store.close()


class Collector(ImageGc):
    """With what it was told and has said."""

    def __init__(self, store: ImageStore, policy: Policy = AT_ONCE) -> None:
        self.used: set[str] = set()
        self.said: list[tuple[str, str]] = []
        self.metrics = Metrics()
        super().__init__(store, policy, lambda: self.used, lambda *words: self.said.append(words), self.metrics)


async def pulled(store: ImageStore, registry: Hostile, name: str, image: Packed) -> Image:
    registry.image = image
    return await store.ensure(f"{registry.address}/{name}:1", "Always")


def layers(store: ImageStore) -> int:
    return len(list(store.layers.iterdir()))


async def test_unused_images_go_and_shared_layers_stay_with_those_in_use(store: ImageStore, registry: Hostile) -> None:
    kept = await pulled(store, registry, "kept", pack([BASE]))
    gone = await pulled(store, registry, "gone", pack([BASE, [file("own", b"1" * 5000)]]))
    gc = Collector(store)
    gc.used = {kept.id}
    assert await gc.collect() > 5000
    assert [found.image.id for found in await store.held()] == [kept.id]
    assert layers(store) == 1
    assert (await store.ensure(f"{registry.address}/kept:1", "Never")).id == kept.id
    with pytest.raises(images.ImageFailure, match="not present"):
        await store.ensure(f"{registry.address}/gone:1", "Never")
    ((reason, words),) = gc.said  # the disk of this machine is fuller than the test's image makes it
    assert reason == "FreeDiskSpaceFailed"
    assert words.startswith("Failed to garbage collect required amount of images. Attempted to free ")
    assert "images_removed_total 1" in gc.metrics.registry.text()
    assert (await pulled(store, registry, "gone", pack([BASE, [file("own", b"1" * 5000)]]))).id == gone.id


async def test_below_the_threshold_nothing_goes_but_layers_of_no_image(store: ImageStore, registry: Hostile) -> None:
    await pulled(store, registry, "kept", pack([BASE]))
    (store.layers / ("0" * 64)).mkdir()
    gc = Collector(store, Policy(high=100, low=99, minimum_age=0))
    await gc.collect()
    assert layers(store) == 1
    assert gc.said == []


async def test_an_image_that_was_handed_out_a_moment_ago_stays(
    store: ImageStore, registry: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "LEASE", 100.0)
    image = await pulled(store, registry, "new", pack([BASE]))
    await Collector(store).collect()
    assert (await store.get(image.id)).layers


async def test_layers_that_a_pull_counts_on_stay(store: ImageStore, registry: Hostile) -> None:
    await pulled(store, registry, "old", pack([BASE]))
    registry.image = pack([BASE, [file("own", os.urandom(5000))]])
    gate = registry.faults["layer"] = Gate()
    pull = asyncio.create_task(store.ensure(f"{registry.address}/new:1", "Always"))
    assert await asyncio.to_thread(gate.reached.wait, 20)
    await Collector(store).collect()
    assert await store.held() == []
    assert layers(store) == 1
    gate.open()
    image = await pull
    assert (await store.get(image.id)).layers == image.layers


async def test_a_pull_that_finds_the_disk_full_makes_room(store: ImageStore, registry: Hostile) -> None:
    await pulled(store, registry, "old", pack([BASE]))
    gc = Collector(store, Policy(high=100, low=99, minimum_age=0))
    running = asyncio.create_task(gc.run())
    registry.image = pack([[file(str(number))] for number in range(3)])
    manifest = json.loads(registry.image.manifest)
    for layer in manifest["layers"]:
        layer["size"] = 1 << 40
    registry.image.manifest = json.dumps(manifest).encode()
    try:
        with pytest.raises(images.ImageFailure, match="no space left on device"):
            await store.ensure(f"{registry.address}/huge:1", "Always")
        async with asyncio.timeout(10):
            while await store.held():
                await asyncio.sleep(0.02)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_list_of_images_is_read_once_a_change(store: ImageStore, registry: Hostile) -> None:
    assert await store.listed() == []
    image = await pulled(store, registry, "one", pack([BASE]))
    found = await store.listed()
    assert [one.names for one in found] == [(image.repo_digest, image.ref)]
    assert found[0].size > 100_000
    assert await store.listed() is found
