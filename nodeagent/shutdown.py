"""`podplane-nodeagent shutdown`: ends what runs in the node's pods, because the machine is about to stop.

Without it, init would wait for its own long deadline on every process that is deaf to SIGTERM, which a container's
first process mostly is. Each is asked by the signal of its image, and killed after the grace. Everything else stays:
after the boot the agent finds the pods as the boot left them. Refuses while an agent runs: it would start them again.
"""

from __future__ import annotations

import asyncio
import logging
import os

from nodeagent.config import Config
from nodeagent.joining import CannotStart, lock
from nodeagent.runtime.containers import ContainerRuntime
from nodeagent.runtime.detection import RuntimeNotReady
from nodeagent.runtime.images import ImageStore
from nodeagent.types import RuntimeFailure

log = logging.getLogger(__name__)


async def shut_down(config: Config) -> None:
    """End every container. Raises CannotStart, naming those that could not be ended."""
    paths = config.paths
    if not paths.run.exists():
        return
    paths.make()
    held = lock(paths.lock)
    try:
        runtime = await ContainerRuntime.open(
            state=paths.state,
            run=paths.run,
            runtime=config.runtime,
            images=ImageStore(paths.state, paths.run),
            conmon_cgroup=f"{config.cgroup_root}/conmon",
        )
        try:
            await _end(runtime, config.grace)
        finally:
            await runtime.close()
    except RuntimeNotReady as problem:
        raise CannotStart(f"cannot end the containers: {problem}") from problem
    finally:
        os.close(held)


async def _end(runtime: ContainerRuntime, grace: float) -> None:
    living = {found.id for found in await runtime.list() if found.state == "running"}
    log.info("asking %d containers to end, for %g s at most", len(living), grace)
    for id_ in living:
        await runtime.stop(id_)
    try:
        async with asyncio.timeout(grace):
            while living:
                living.discard((await runtime.exits.get()).id)
    except TimeoutError:
        log.info("killing %d containers: %s", len(living), ", ".join(sorted(living)))
    left = []
    for id_ in living:
        try:
            await runtime.kill(id_)
        except RuntimeFailure as failure:
            left.append(f"{id_} ({failure})")
    if left:
        raise CannotStart(f"still running: {', '.join(left)}")
