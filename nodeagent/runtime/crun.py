"""What spares a run of crun: its program sealed in memory, and its start done by the agent itself.

Every run of a dynamically linked program costs 1-3 ms of CPU, and crun runs itself twice: so that no container can
write to the node's program (CVE-2019-5736) it first copies itself into a sealed memory file, unless it runs from such
a file already. So the agent keeps one. And `crun start` does nothing but write one byte into the fifo on which the
container's first process waits (libcrun/status.c, libcrun_status_write_exec_fifo), hooks aside, which we never give.

Never fails: where something here does not work, the caller runs crun in the ordinary way.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
from pathlib import Path

from nodeagent.runtime.process import ProgramTimeout, run

_MFD_EXEC = 0x10
_DEADLINE = 10.0
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
"""Exactly those that crun looks for (libcrun/cloned_binary.c, CRUN_MEMFD_SEALS)."""
_FIFO = "exec.fifo"

logger = logging.getLogger(__name__)


async def sealed(program: str) -> int | None:
    """A descriptor of a sealed copy of crun: /proc/self/fd/N for a child that inherits it. None: it does not run."""
    fd = -1
    try:
        fd = _memory_file()
        _fill(fd, program)
        done = await run([path(fd), "--version"], deadline=_DEADLINE, pass_fds=[fd])
        if done.code == 0:
            return fd
        problem = done.words
    except (OSError, ProgramTimeout) as error:
        problem = str(error)
    if fd >= 0:
        os.close(fd)
    logger.info("crun copies itself at every start: it does not run from a sealed memory file: %s", problem)
    return None


def path(fd: int) -> str:
    """The program behind a descriptor, as a process that inherits the descriptor names it."""
    return f"/proc/self/fd/{fd}"


def _memory_file() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("crun", flags | _MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create("crun", flags)  # before Linux 6.3 every memory file may be executed


def _fill(fd: int, program: str) -> None:
    with open(program, "rb") as source, open(fd, "wb", closefd=False) as target:
        shutil.copyfileobj(source, target)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)


def begin(state: Path) -> bool:
    """Let a created container run; `state` is its directory below crun's root. False: crun is to be asked.

    The fifo goes last: killed in between, the next agent finds it without a reader, and then crun knows the rest.
    """
    fifo = state / _FIFO
    try:
        fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # not there, or nobody waits behind it any more (ENXIO)
        return False
    try:
        os.write(fd, b"\0")
    finally:
        os.close(fd)
    fifo.unlink(missing_ok=True)
    return True
