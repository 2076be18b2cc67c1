"""Who waits for a pull with whom: shared, bounded, told of, and ended with the last one who waits."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from devcluster.proc import Process, command_line, pids
from nodeagent.metrics import Metrics
from nodeagent.runtime import puller
from nodeagent.runtime.image import ImageFailure
from nodeagent.runtime.images import ImageStore, Limits
from nodeagent.runtime.puller import QUEUED
from tests.support.archives import digest, file, pack
from tests.support.hostile import Gate, Hostile, say
from tests.support.waiting import eventually

from .conftest import Node

NOISE = random.Random(1).randbytes(400_000)


@pytest.fixture
def registry() -> Iterator[Hostile]:
    registry = Hostile(pack([[file("noise", NOISE)]]))
    yield registry
    registry.close()


@pytest.fixture
def conf(registry: Hostile, tmp_path: Path) -> Path:
    conf = tmp_path / "registries.conf"
    conf.write_text(registry.conf())
    return conf


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def store(node: Node, conf: Path, metrics: Metrics) -> AsyncIterator[ImageStore]:
    store = ImageStore(node.state, node.run, registries_conf=conf, limits=Limits(parallel=1), metrics=metrics)
    yield store
    await store.close()


def counted(metrics: Metrics) -> dict[str, float]:
    """What Prometheus reads of pulls."""
    lines = (line.removeprefix("podplane_agent_image_") for line in metrics.registry.text().splitlines())
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line.startswith("pull"))
    }


async def reached(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.reached.wait, 20)


async def test_one_pull_serves_all_who_wait_and_outlives_those_who_leave(
    store: ImageStore, registry: Hostile, metrics: Metrics
) -> None:
    gate = registry.faults["layer"] = Gate(1000)
    name = f"{registry.address}/x:1"
    asked: list[str] = []
    waiting = [
        asyncio.create_task(store.ensure(name, policy, on_pull=lambda: asked.append("x")))
        for policy in ("Always", "IfNotPresent", "Always")
    ]
    await reached(gate)
    assert len(asked) == 3
    assert store.pulling == 1
    waiting[0].cancel()
    gate.open()
    first, second = await asyncio.gather(*waiting[1:])
    assert first == second
    assert registry.count("layer") == 1
    found = counted(metrics)
    assert found['pulls_total{result="success"}'] == found["pull_seconds_count"] == 1
    (layer,) = registry.image.layers
    assert found["pull_bytes_total"] == len(registry.image.blobs[layer])
    assert 0 < found["pull_seconds_sum"] < 30


async def test_a_pull_that_fails_is_counted_by_the_status_shown(
    store: ImageStore, registry: Hostile, metrics: Metrics
) -> None:
    registry.faults["manifest"] = say(404, "MANIFEST_UNKNOWN", "not known here")
    with pytest.raises(ImageFailure, match="not known here"):
        await store.ensure(f"{registry.address}/x:1", "Always")
    assert counted(metrics) == {'pulls_total{result="ErrImagePull"}': 1, "pull_bytes_total": 0}


async def test_different_logins_do_not_share(store: ImageStore, registry: Hostile) -> None:
    registry.logins = {"a:1", "b:2"}
    name = f"{registry.address}/x:1"
    logins = [[(registry.address, {"username": user, "password": word})] for user, word in (("a", "1"), ("b", "2"))]
    pulls = [asyncio.create_task(store.ensure(name, "Always", logins=login)) for login in logins]
    await asyncio.sleep(0)
    assert store.pulling == 2
    one, two = await asyncio.gather(*pulls)
    assert one.id == two.id
    assert registry.count("layer") == 1  # the second one found the layers


async def test_a_pull_ends_with_the_last_one_who_waits(
    node: Node, store: ImageStore, registry: Hostile, metrics: Metrics
) -> None:
    gate = registry.faults["layer"] = Gate(1000)
    name = f"{registry.address}/x:1"
    waiting = asyncio.create_task(store.ensure(name, "Always"))
    await reached(gate)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(10):
        while store.pulling:
            await asyncio.sleep(0.01)
    assert list((node.state / "images" / "tmp").iterdir()) == []
    assert counted(metrics)['pulls_total{result="cancelled"}'] == 1
    del registry.faults["layer"]
    assert (await store.ensure(name, "Always")).layers


async def test_progress_is_told_in_bytes_and_not_at_every_look(
    store: ImageStore, registry: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(puller, "FIRST_WORD", 0.2)
    monkeypatch.setattr(puller, "NEXT_WORD", 600.0)
    gate = registry.faults["layer"] = Gate(150_000)
    told: list[str] = []
    waiting = asyncio.create_task(store.ensure(f"{registry.address}/x:1", "Always", on_progress=told.append))
    await reached(gate)
    async with asyncio.timeout(10):
        while not told:
            await asyncio.sleep(0.01)
    gate.open()
    await waiting
    assert len(told) == 1
    arrived, _, rest = told[0].partition(" of ")
    assert rest == "390.9 KiB"
    assert float(arrived.removesuffix(" KiB")) <= 146.5


async def test_downloads_beyond_the_bound_wait_and_say_so(store: ImageStore, registry: Hostile) -> None:
    gate = registry.faults["layer"] = Gate()
    first = asyncio.create_task(store.ensure(f"{registry.address}/x:1", "Always"))
    await reached(gate)
    told: list[str] = []
    second = asyncio.create_task(store.ensure(f"{registry.address}/y:1", "Always", on_progress=told.append))
    async with asyncio.timeout(10):
        while not told:
            await asyncio.sleep(0.01)
    assert told == [QUEUED]
    gate.open()
    one, two = await asyncio.gather(first, second)
    assert one.id == two.id
    assert registry.count("layer") == 1  # it came while the second one waited


async def test_a_download_does_not_hold_up_what_is_here(store: ImageStore, registry: Hostile) -> None:
    name = f"{registry.address}/x:latest"
    known = await store.ensure(name, "Always")
    registry.more[digest(registry.image.manifest)] = (registry.image.kind, registry.image.manifest)
    registry.image = pack([[file("slow", NOISE[1:])]])
    gate = registry.faults["layer"] = Gate()
    slow = asyncio.create_task(store.ensure(f"{registry.address}/slow:1", "Always"))
    await reached(gate)
    async with asyncio.timeout(20):
        assert (await store.ensure(known.repo_digest, "Always")).id == known.id
    assert not slow.done()
    gate.open()
    await slow


AGENT = """
import asyncio, sys
from pathlib import Path
from nodeagent.runtime.images import ImageStore

async def main(state, run, conf, name):
    await ImageStore(Path(state), Path(run), registries_conf=Path(conf)).ensure(name, "Always")

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_pull_whose_agent_is_killed_leaves_nothing_partial(node: Node, registry: Hostile, conf: Path) -> None:
    registry.image = pack([[file("first", NOISE)], [file("second", NOISE[1:])]])
    gate = registry.faults["layer"] = Gate(1000)
    name = f"{registry.address}/x:1"
    argv = [sys.executable, "-c", AGENT, str(node.state), str(node.run), str(conf), name]
    agent = subprocess.Popen(argv)  # noqa: ASYNC220
    await reached(gate)
    agent.kill()
    agent.wait()
    # What it had begun to run ends with it, and what comes next sweeps.
    eventually(lambda: not downloads(node.state), 10, "skopeo's end")
    store = ImageStore(node.state, node.run, registries_conf=conf)
    assert list((node.state / "images" / "tmp").iterdir()) == []
    assert await store.held() == []
    assert list(store.layers.iterdir()) == []
    gate.open()
    image = await store.ensure(name, "Always")
    assert (store.layers / image.layers[0].partition(":")[2] / "first").read_bytes() == NOISE
    await store.close()


def downloads(state: Path) -> list[int]:
    """Processes that work below a state directory."""
    return [pid for pid in pids() if any(str(state) in word for word in command_line(pid)) and Process.of(pid)]
