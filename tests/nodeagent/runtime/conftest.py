"""A node for the runtime's tests: state on disk, run in memory, a cgroup of its own; all of it is gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from nodeagent import syscalls
from nodeagent.runtime.cgroups import Cgroups
from nodeagent.runtime.containers import ContainerRuntime
from nodeagent.runtime.images import ImageStore
from nodeagent.runtime.opening import open_runtime
from nodeagent.types import ContainerExit, ContainerRequest, Resources, Sandbox, Security
from tests.support.waiting import eventually

KIND = os.environ.get("PODPLANE_TEST_RUNTIME", "runc")


@dataclass
class Node:
    """The directories and the cgroup of a test."""

    state: Path
    run: Path
    cgroup: str
    images: ImageStore
    runtimes: list[ContainerRuntime] = field(default_factory=list)

    async def open(self, **options: object) -> ContainerRuntime:
        runtime = await open_runtime(
            state=self.state, run=self.run, runtime=KIND, images=self.images,
            conmon_cgroup=f"{self.cgroup}/conmon", **options,  # type: ignore[arg-type]
        )  # fmt: skip
        self.runtimes.append(runtime)
        return runtime

    def request(self, *command: str, name: str = "app", attempt: int = 0, **changes: object) -> ContainerRequest:
        box = Sandbox("uid-1", 0, None, None, None, None, None)
        asked = ContainerRequest(
            pod_uid="uid-1", namespace="default", pod_name="web", name=name, attempt=attempt, image="host",
            command=command, args=(), env=(), working_dir="", mounts=(), sandbox=box, resources=Resources(),
            security=Security(), cgroup=f"{self.cgroup}/poduid-1/{name}_{attempt}",
        )  # fmt: skip
        return replace(asked, **changes)  # type: ignore[arg-type]

    def log(self, request: ContainerRequest) -> str:
        """What the container has written, without times."""
        path = next(self.state.glob(f"logs/*/{request.name}/{request.attempt}.log"))
        return "".join(line.split(" ", 3)[3] for line in path.read_text().splitlines(keepends=True))


@contextlib.contextmanager
def _directories() -> Iterator[Node]:
    # Not below /tmp: a container gets a /tmp of its own, and would hide the state directory by luck.
    base = Path(tempfile.mkdtemp(prefix="podplane-test-", dir="/var/tmp"))
    state, run = base / "state", base / "run"
    state.mkdir(mode=0o700)
    run.mkdir(mode=0o700)
    syscalls.mount("tmpfs", run, "tmpfs", 0, "mode=700")
    try:
        yield Node(state, run, base.name, ImageStore(state, run))
    finally:
        syscalls.umount2(run)
        shutil.rmtree(base)


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    with _directories() as made:
        try:
            yield made
        finally:
            for runtime in made.runtimes:
                for path in (made.run / "containers").iterdir():
                    await runtime.remove(path.name)
                await runtime.close()
            await made.images.close()
            cgroups = Cgroups.detect()
            # A conmon whose container is gone may still be on its way out.
            eventually(lambda: cgroups.remove(made.cgroup), 10, f"end of the processes in {made.cgroup}")
            assert cgroups.remove(f"{made.cgroup}/conmon-selftest")
    assert made.cgroup not in Path("/proc/self/mountinfo").read_text()
    assert list(Path("/sys/fs/cgroup").glob(f"*/{made.cgroup}*")) == []


@pytest.fixture
async def runtime(node: Node) -> ContainerRuntime:
    return await node.open()


async def ran(runtime: ContainerRuntime, request: ContainerRequest) -> ContainerExit:
    """Run a container to its end."""
    await runtime.create(request)
    await runtime.start(request.id)
    return await ended(runtime, request)


async def ended(runtime: ContainerRuntime, request: ContainerRequest) -> ContainerExit:
    """The next end that is told, which must be this container's."""
    end = await asyncio.wait_for(runtime.exits.get(), 20)
    assert end.id == request.id
    return end
