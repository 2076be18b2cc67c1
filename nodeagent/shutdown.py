"""`podplane-nodeagent shutdown`: ends what runs in the node's pods, because the machine is about to stop.

Without it, init would wait for its own long deadline on every process that is deaf to SIGTERM, which a container's
first process mostly is. Each is asked by the signal of its image, and killed after the grace. Everything else stays:
after the boot the agent finds the pods as the boot left them. Refuses while an agent runs: it would start them again.

Needs neither the OCI runtime nor the network, and imports little: it is one of the last programs of a boot.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os

from nodeagent import syscalls
from nodeagent.config import Config
from nodeagent.joining import CannotStart, lock
from nodeagent.runtime.cgroups import Cgroups
from nodeagent.runtime.conmon import Files
from nodeagent.runtime.ending import kill_cgroup
from nodeagent.runtime.process import ended
from nodeagent.runtime.record import Record, first_process, read_record
from nodeagent.types import RuntimeFailure

log = logging.getLogger(__name__)

KILL_DEADLINE = 10.0


async def shut_down(config: Config) -> None:
    """End every container. Raises CannotStart, naming those that could not be ended."""
    paths = config.paths
    directory = paths.run / "containers"
    if not directory.is_dir():
        return
    held = lock(paths.lock)
    try:
        cgroups = Cgroups.detect()
        found = [(files, read_record(files)) for files in (Files(paths.run, name) for name in os.listdir(directory))]
        ends = [_end(files, record, cgroups, config.grace) for files, record in found if record is not None]
        log.info("asking %d containers to end, for %g s at most", len(ends), config.grace)
        left = [words for words in await asyncio.gather(*ends) if words]
    finally:
        os.close(held)
    if left:
        raise CannotStart(f"still running: {', '.join(left)}")


async def _end(files: Files, record: Record, cgroups: Cgroups, grace: float) -> str:
    """End one container; what is left of it, "" where nothing is."""
    pid = first_process(files, record)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            pidfd = syscalls.pidfd_open(pid)
            try:
                # Looked at once more behind the pidfd: the number may have been given to somebody else.
                if first_process(files, record) == pid:
                    syscalls.pidfd_send_signal(pidfd, record.stop_signal)
                    await ended(pidfd, grace)
            finally:
                os.close(pidfd)
    try:
        await kill_cgroup(cgroups, record.cgroup, KILL_DEADLINE)
    except RuntimeFailure as failure:
        return f"{record.id} ({failure})"
    return ""
