"""Pods on the real parts: runc under conmon, pinned namespaces, volumes, journal; and one agent after the other."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest

from nodeagent import syscalls
from nodeagent.paths import Paths
from nodeagent.pods.addresses import Addresses
from nodeagent.pods.clock import Clock
from nodeagent.pods.events import VolumesReady
from nodeagent.pods.journal import Journal, frames
from nodeagent.pods.kept import KeptPods, Origin
from nodeagent.pods.manager import Pods
from nodeagent.pods.objects import Objects
from nodeagent.pods.outbox import Outbox
from nodeagent.pods.recovery import recover
from nodeagent.pods.state import UP
from nodeagent.pods.tools import NodeFacts, Tools
from nodeagent.runtime.images import ImageStore
from nodeagent.runtime.opening import open_runtime
from nodeagent.runtime.volumes import Volumes
from nodeagent.sandbox.sandboxes import Sandboxes
from podplane.tasks import TaskEnded, Tasks
from podplane.v1.pod_pb2 import Pod, PodStatus
from podplane.v1.session_pb2 import AgentFrame, ObjectChange

DEADLINE = 40.0
ALLOCATABLE = {"cpu": "8", "memory": "8Gi", "pods": "10"}


class OneAgent:
    """What an agent is without its session: `kill` leaves everything as SIGKILL would."""

    def __init__(self, base: Path) -> None:
        self.paths = Paths(base / "state", base / "run")
        self.cgroup = base.name
        self._together: deque[AgentFrame] = deque()

    async def start(self) -> None:
        self.paths.make()
        images = ImageStore(self.paths.state, self.paths.run)
        self.runtime = await open_runtime(
            state=self.paths.state, run=self.paths.run, runtime="runc", images=images,
            conmon_cgroup=f"{self.cgroup}/conmon",
        )  # fmt: skip
        facts = NodeFacts("n1", "10.0.0.1", 1 << 33, ALLOCATABLE, self.cgroup)
        self.journal = Journal(self.paths.boot_journal, self.paths.durable_journal, "boot")
        self.tasks, clock = Tasks(), Clock()
        self.outbox, self.objects = Outbox(facts, clock), Objects(self.paths)
        self.objects.load()
        tools = Tools(
            paths=self.paths, facts=facts, clock=clock, journal=self.journal, addresses=Addresses(),
            objects=self.objects, runtime=self.runtime, images=images, sandboxes=Sandboxes(self.paths.run, None),
            volumes=Volumes(self.paths.state, self.paths.run), reports=self.outbox,
        )  # fmt: skip
        self.pods = Pods(tools, self.outbox, self.tasks, ALLOCATABLE, frozenset)
        await recover(tools, self.pods)
        self.tasks.start(self.pods.route_exits(), name="exits")

    async def kill(self) -> None:
        await self.tasks.stop()
        await self.runtime.close()
        self.journal.close()

    async def said(self) -> AgentFrame:
        """The next frame, also where several come together."""
        if not self._together:
            frame = await self.outbox.next()
            self._together.extend(frame.batch.frames or [frame])
        return self._together.popleft()

    async def until(self, holds: Callable[[PodStatus], bool], uid: str = "uid-1") -> PodStatus:
        """The first status, of those that are said, that `holds`; an empty one once the pod is said to be gone."""
        failed = asyncio.ensure_future(self.tasks.wait())
        try:
            async with asyncio.timeout(DEADLINE):
                while True:
                    said = asyncio.ensure_future(self.said())
                    await asyncio.wait({said, failed}, return_when=asyncio.FIRST_COMPLETED)
                    if failed.done():
                        failed.result()
                    frame = said.result()
                    if frame.gone.uid == uid:
                        return PodStatus()
                    if frame.podStatus.uid == uid and holds(frame.podStatus.status):
                        return frame.podStatus.status
        finally:
            failed.cancel()


@pytest.fixture
async def agent() -> AsyncIterator[OneAgent]:
    base = Path(tempfile.mkdtemp(prefix="podplane-test-", dir="/var/tmp"))
    (base / "run").mkdir()
    syscalls.mount("tmpfs", base / "run", "tmpfs", 0, "mode=700")
    made = OneAgent(base)
    try:
        await made.start()
        yield made
    finally:
        for found in await made.runtime.list():
            await made.runtime.remove(found.id)
        await made.kill()
        for path in sorted((base / "run" / "sandboxes").glob("*/*"), reverse=True):
            _unmount(path)
        syscalls.umount2(base / "run", 2)
        shutil.rmtree(base)
        made.runtime.cgroups.remove(f"{base.name}/conmon")
        made.runtime.cgroups.remove(base.name)


def _unmount(path: Path) -> None:
    if path.is_mount():
        syscalls.umount2(path, 2)


def a_pod(command: str, **spec: object) -> Pod:
    pod = Pod()
    pod.metadata.name, pod.metadata.namespace, pod.metadata.uid = "web", "default", "uid-1"
    pod.spec.hostNetwork = True
    pod.spec.terminationGracePeriodSeconds = 1
    pod.spec.volumes.add(name="v").configMap.name = "cm"
    pod.spec.initContainers.add(name="init", image="host", command=["true"])
    app = pod.spec.containers.add(name="app", image="host", command=["sh", "-c", command])
    app.volumeMounts.add(name="v", mountPath="/v")
    for name, value in spec.items():
        setattr(pod.spec, name, value)
    return pod


def config_map(text: str) -> ObjectChange:
    change = ObjectChange(type="ADDED")
    change.configMap.metadata.name, change.configMap.metadata.namespace = "cm", "default"
    change.configMap.data["greeting"] = text
    return change


def is_ready(status: PodStatus) -> bool:
    return any(item.type == "Ready" and item.status == "True" for item in status.conditions)


async def gone(agent: OneAgent) -> list[str]:
    """What is left once the pod is said to be gone."""
    assert await agent.until(lambda _status: False) == PodStatus()
    left = [*agent.paths.pods.iterdir(), *(agent.paths.run / "containers").iterdir()]
    left += [*(agent.paths.run / "sandboxes").iterdir(), *(agent.paths.run / "pods").iterdir()]
    return [str(path) for path in [*left, *agent.paths.logs.iterdir()]]


async def test_a_pod_waits_for_its_config_map_runs_and_ends_without_a_trace(agent: OneAgent) -> None:
    agent.pods.put(a_pod("cat /v/greeting; exec sleep 600"))
    asyncio.get_running_loop().call_later(0.3, agent.objects.apply, config_map("hello"))
    status = await agent.until(is_ready)
    assert status.initContainerStatuses[0].state.terminated.exitCode == 0
    log = next(agent.paths.logs.glob("*/app/*.log"))
    async with asyncio.timeout(DEADLINE):
        while "hello" not in log.read_text():
            await asyncio.sleep(0.02)
    agent.pods.remove("uid-1", 0)
    await agent.until(lambda status: status.containerStatuses[0].state.HasField("terminated"))
    assert await gone(agent) == []


async def test_a_spec_is_on_the_disk_before_the_journal_knows_the_pod(
    agent: OneAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut in between would leave a record without a spec: the pod and its volumes would go with it."""
    synced: list[str] = []

    def noted(real: Callable[[int], None]) -> Callable[[int], None]:
        def sync(file: int) -> None:
            synced.append(os.readlink(f"/proc/self/fd/{file}"))
            real(file)

        return sync

    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, noted(getattr(os, name)))
    agent.objects.apply(config_map("hello"))
    agent.pods.put(a_pod("exec sleep 600"))
    await agent.until(is_ready)
    pods, journal = agent.paths.pods, str(agent.paths.durable_journal)
    assert {*synced[:2]} == {f"{pods}/uid-1.pb", f"{pods}/uid-1.json"}
    assert synced[2:4] == [str(pods), journal]
    assert str(pods) not in synced[4:]
    agent.pods.remove("uid-1", 0)
    assert await gone(agent) == []


async def test_nobody_is_told_of_a_start_that_is_not_on_the_disk(
    agent: OneAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut in between would let the pod begin once more, as if for the first time."""
    slow, ready, real = threading.Event(), threading.Event(), os.fdatasync

    def sync(file: int) -> None:
        *_, (_, last) = frames(agent.paths.durable_journal.read_bytes())
        if any(app.get("stage") in UP for app in last["state"]["apps"]):
            slow.set()
            assert ready.wait(DEADLINE)
        real(file)

    monkeypatch.setattr(os, "fdatasync", sync)
    agent.objects.apply(config_map("hello"))
    agent.pods.put(a_pod("exec sleep 600"))
    told = asyncio.create_task(agent.until(lambda status: status.containerStatuses[0].state.HasField("running")))
    try:
        assert await asyncio.to_thread(slow.wait, DEADLINE)
        assert agent.runtime.pid("uid-1_app_0") is not None
        done, _ = await asyncio.wait({told}, timeout=0.2)
        assert not done
    finally:
        ready.set()
    assert is_ready(await told)
    agent.pods.remove("uid-1", 0)
    assert await gone(agent) == []


def refused(image: str, status: PodStatus) -> bool:
    container = status.containerStatuses[0]
    return container.image == image and bool(container.state.waiting.message)


async def test_a_detail_is_told_although_nothing_else_changes(agent: OneAgent) -> None:
    agent.objects.apply(config_map("hello"))
    for image in ("localhost/none:1", "localhost/none:2"):
        pod = a_pod("exec sleep 600")
        pod.spec.containers[0].image, pod.spec.containers[0].imagePullPolicy = image, "Never"
        agent.pods.put(pod)
        status = await agent.until(partial(refused, image))
    assert status.containerStatuses[0].state.waiting.reason == "ErrImageNeverPull"
    agent.pods.remove("uid-1", 0)
    assert await gone(agent) == []


async def test_the_next_agent_keeps_the_same_process_and_restarts_nothing(agent: OneAgent) -> None:
    agent.objects.apply(config_map("hello"))
    agent.pods.put(a_pod("exec sleep 600"))
    await agent.until(is_ready)
    before = agent.runtime.pid("uid-1_app_0")
    await agent.kill()
    await agent.start()
    status = await agent.until(is_ready)
    assert agent.runtime.pid("uid-1_app_0") == before is not None
    assert status.containerStatuses[0].restartCount == 0
    agent.pods.remove("uid-1", 0)
    assert await gone(agent) == []


async def test_a_bug_is_told_of_the_pod_before_it_ends_the_agent_and_the_next_one_goes_on(
    agent: OneAgent, caplog: pytest.LogCaptureFixture
) -> None:
    agent.objects.apply(config_map("hello"))
    agent.pods.put(a_pod("exec sleep 600"))
    await agent.until(is_ready)
    before = agent.runtime.pid("uid-1_app_0")
    agent.pods._workers["uid-1"].post(VolumesReady(0.0))  # nothing in flight explains it
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(TaskEnded, match="IllegalStep"):
            await agent.tasks.wait()
    async with asyncio.timeout(DEADLINE):
        while (event := (await agent.said()).event).reason != "AgentFailure":
            pass
    assert event.type == "Warning"
    assert event.involvedObject.uid == "uid-1"
    assert "IllegalStep: cannot step pod web" in event.message
    (record,) = [record for record in caplog.records if record.levelname == "CRITICAL"]
    assert "ContainerStarted app 0" in record.getMessage()
    await agent.kill()
    await agent.start()
    await agent.until(is_ready)
    assert agent.runtime.pid("uid-1_app_0") == before
    agent.pods.remove("uid-1", 0)
    assert await gone(agent) == []


async def test_the_kept_specs_say_how_far_a_cluster_was_seen(agent: OneAgent) -> None:
    """cluster.json is a second behind: a store that was set back by less must not take the pod away."""
    agent.objects.apply(config_map("hello"))
    pod = a_pod("exec sleep 600")
    pod.metadata.resourceVersion = "41"
    agent.pods.origin = Origin("c1", "e1")
    agent.pods.put(pod)
    await agent.until(is_ready)
    await agent.kill()
    await agent.start()
    assert agent.pods.newest(Origin("c1", "e1")) == 41
    assert agent.pods.newest(Origin("c1", "e2")) == 0
    agent.pods.remove("uid-1", 0)
    assert await gone(agent) == []


async def test_what_belongs_to_no_pod_is_gone_after_a_start(agent: OneAgent) -> None:
    await agent.kill()
    state, run = agent.paths.state, agent.paths.run
    strays = [state / "volumes" / "uid-9" / "v", run / "pods" / "uid-9", agent.paths.logs / "default_web_uid-9" / "app"]
    for path in strays:
        path.mkdir(parents=True)
    KeptPods(agent.paths).keep(a_pod("never begun"), Origin("c", "e"))
    await agent.start()
    left = [*agent.paths.pods.iterdir(), *(state / "volumes").iterdir(), *(run / "pods").iterdir()]
    assert [str(path) for path in [*left, *agent.paths.logs.iterdir()]] == []


async def test_an_end_while_no_agent_ran_is_told_with_its_code(agent: OneAgent) -> None:
    agent.objects.apply(config_map("hello"))
    agent.pods.put(a_pod("while [ $(cat /v/greeting) = hello ]; do sleep 0.1; done; exit 7", restartPolicy="Never"))
    await agent.until(is_ready)
    data = next((agent.paths.state / "volumes").glob("uid-1/v"))
    await agent.kill()
    exits = agent.paths.run / "exits"
    (data / "..data" / "greeting").write_text("over")
    async with asyncio.timeout(DEADLINE):
        while not any("app" in path.name for path in exits.iterdir()):
            await asyncio.sleep(0.05)
    await agent.start()
    status = await agent.until(lambda status: status.phase == "Failed")
    assert status.containerStatuses[0].state.terminated.exitCode == 7
    agent.pods.remove("uid-1", 0)
    assert await gone(agent) == []
