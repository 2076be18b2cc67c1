"""What an agent needs before it can run: the state directory for itself, and an identity.

Joining and renewing are done by a child (join.py). Fails with CannotStart, whose message says what to do.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sys
from pathlib import Path

from nodeagent import certificates
from nodeagent.certificates import Identity, NotJoined
from nodeagent.config import Config
from nodeagent.pods.clock import Clock

log = logging.getLogger(__name__)

JOIN_DEADLINE = 60.0
_NETWORK = Path("/proc/thread-self/ns/net")


class CannotStart(Exception):
    """The agent cannot run here; the message says why and what to do."""


async def run_join(arguments: list[str]) -> None:
    """Run join.py as a child; CannotStart in its words."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "nodeagent.join", *arguments, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(JOIN_DEADLINE):
            _, words = await child.communicate()
    except TimeoutError:
        child.kill()
        await child.wait()
        raise CannotStart(f"joining took longer than {JOIN_DEADLINE:.0f} s") from None
    if child.returncode != 0:
        raise CannotStart(words.decode(errors="replace").strip() or f"joining ended with {child.returncode}")


async def identify(config: Config) -> Identity:
    """The node's identity; joins where there is none that can be used. Raises CannotStart."""
    try:
        identity = certificates.read(config.paths.pki)
        if not certificates.expired(identity, Clock().now()):
            return identity
        missing = f"its certificate ended {certificates.until(identity)}"
    except NotJoined as error:
        missing = str(error)
    if not config.join or not config.token_file:
        raise CannotStart(f"{missing}: start with --join ADDRESS --token-file FILE")
    arguments = ["--pki", str(config.paths.pki), "--address", config.join]
    await run_join([*arguments, "--node-name", config.node_name, "--token-file", config.token_file])
    log.info("joined", extra={"node": config.node_name, "address": config.join})
    return certificates.read(config.paths.pki)


def lock(path: Path) -> int:
    """Hold the state directory for this process; CannotStart where another agent has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise CannotStart(f"another agent runs with the state directory {path.parent}") from None
    return descriptor


def hold_network() -> int:
    """Let cleanups see, whatever directories they are given, that an agent runs in this network namespace.

    By a lock on the namespace itself, which leaves no trace. Any program may lock it: that stops cleanups, no agent.
    """
    descriptor = os.open(_NETWORK, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        log.warning("a cleanup with other directories than this agent's would not see it: cannot lock the network "
                    "namespace%s: %s", _processes(descriptor), error)  # fmt: skip
    return descriptor


def refuse_beside_agent() -> None:
    """Raise CannotStart where an agent runs in this network namespace."""
    descriptor = os.open(_NETWORK, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CannotStart(
            f"an agent runs in this network namespace{_processes(descriptor)}: end it first, and name its directories "
            "(--state-dir, --run-dir)"
        ) from None
    finally:
        os.close(descriptor)


def _processes(descriptor: int) -> str:
    """Which ones have locked this file, in words; "" where none is to be seen from here. Source: proc_locks(5)."""
    file = os.fstat(descriptor)
    name = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    locks = (line.split() for line in Path("/proc/locks").read_text().splitlines())
    found = [words[4] for words in locks if words[1] == "FLOCK" and words[5] == name]
    return f" (process {', '.join(found)})" if found else ""
