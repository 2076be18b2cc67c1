"""`podplane-nodeagent run | shutdown | cleanup`. Reads the flags, sets up logging, runs."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

# Before anything imports grpc: a fork handler of gRPC's would freeze the loop when a child is started.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

if TYPE_CHECKING:
    from nodeagent.config import Config

log = logging.getLogger("nodeagent")

_YOUNG = 10_000
"""Values after which Python looks for garbage among them, a megabyte or so: it has 700, and a node's services are many
values that stay."""


def main() -> int:
    """The program; its exit status."""
    gc.disable()  # of what is imported nothing is garbage
    from nodeagent import config
    from nodeagent.joining import CannotStart
    from podplane.logging import setup
    from podplane.tasks import TaskEnded

    options = config.parse(sys.argv[1:])
    setup(options.log_level, options.log_format)
    work = _work(options.command)
    gc.freeze()
    gc.set_threshold(_YOUNG)
    gc.enable()

    async def run() -> None:
        await work(options)

    try:
        asyncio.run(run())
    except (CannotStart, TaskEnded) as error:
        log.critical("%s", error, exc_info=error.__cause__)
        return 1
    return 0


def _work(command: str) -> Callable[[Config], Awaitable[None]]:
    """Imports what the command needs alone: a shutdown waits for it."""
    if command == "shutdown":
        from nodeagent.shutdown import shut_down

        return shut_down
    if command == "cleanup":
        from nodeagent.cleanup import clean

        return clean
    from nodeagent.agent import serve

    return serve


if __name__ == "__main__":
    sys.exit(main())
