"""The runtime's self-test: a container of the node's own filesystem must run to its end.

Fails with RuntimeNotReady, in the words of what failed. Leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Protocol

from nodeagent.runtime import logs
from nodeagent.runtime.detection import RuntimeNotReady
from nodeagent.runtime.image import HOST
from nodeagent.types import ContainerExit, ContainerRequest, Resources, RuntimeFailure, Sandbox, Security


class Runtime(Protocol):
    """What is tested: the life of a container."""

    exits: asyncio.Queue[ContainerExit]

    async def create(self, request: ContainerRequest) -> int: ...
    async def start(self, id: str) -> None: ...
    async def remove(self, id: str) -> None: ...
    def log_path(self, id: str) -> Path | None: ...


def request(cgroup: str) -> ContainerRequest:
    """A container that ends at once, in the node's own network."""
    box = Sandbox("selftest", 0, None, None, None, None, None)
    return ContainerRequest(
        pod_uid="selftest", namespace="podplane", pod_name="selftest", name="runtime", attempt=0, image=HOST,
        command=("/bin/true",), args=(), env=(), working_dir="/", mounts=(), sandbox=box, resources=Resources(),
        security=Security(), cgroup=cgroup,
    )  # fmt: skip


async def check(runtime: Runtime, cgroup: str, deadline: float) -> None:
    """Run the test container. Raises RuntimeNotReady."""
    asked = request(cgroup)
    try:
        await runtime.remove(asked.id)
        await runtime.create(asked)
        await runtime.start(asked.id)
        end = await asyncio.wait_for(runtime.exits.get(), deadline)
        if end.code != 0:
            raise RuntimeNotReady(f"the test container ended with {end.code}: {await _log(runtime, asked)}")
    except TimeoutError:
        raise RuntimeNotReady(f"the test container did not end within {deadline:g} s") from None
    except RuntimeFailure as failure:
        raise RuntimeNotReady(f"the test container failed: {failure.message}") from failure
    finally:
        with contextlib.suppress(RuntimeFailure):
            await runtime.remove(asked.id)


async def _log(runtime: Runtime, asked: ContainerRequest) -> str:
    path = runtime.log_path(asked.id)
    return await asyncio.to_thread(logs.last_lines, path, 5, 500) if path else ""
