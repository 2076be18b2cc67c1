"""Containers: an OCI runtime under one conmon each, which outlive the agent.

Owns run/containers/<id>/ (bundle, record, pids, sync file), run/exits/, run/oci/ (the runtime's state), the root
filesystem's mount and the container's cgroup; every name is made of pod uid, container and attempt, and every
operation may be done again. The logs are only written to by conmon and stay. Never restarts anything and never
decides: that is the pod's state machine.

    create ──► created ── start ──► running ── its end ──► stopped ── remove ──► nothing
       └── fails: everything is undone, RuntimeFailure with the runtime's words

An end is told once through `exits`, also one that happened while no agent ran (by list()). A conmon that was killed
leaves its container unwatched: the container is killed and ContainerExit(code=None) is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from nodeagent import syscalls
from nodeagent.runtime import crun, inotify, spec
from nodeagent.runtime.bundle import Bundles, write_private
from nodeagent.runtime.cgroups import Cgroups
from nodeagent.runtime.conmon import Files, Programs
from nodeagent.runtime.ending import end_conmon, kill_cgroup
from nodeagent.runtime.filters import Filters
from nodeagent.runtime.images import ImageStore
from nodeagent.runtime.launch import Launcher
from nodeagent.runtime.pod_cgroups import PodCgroups
from nodeagent.runtime.process import Completed, ProgramTimeout, run
from nodeagent.runtime.record import Record, first_process
from nodeagent.runtime.rootfs import Rootfs, remove_tree
from nodeagent.runtime.settling import Settling
from nodeagent.runtime.supervision import Supervision, Watched, living_conmon, read_exit
from nodeagent.types import (
    ContainerExit,
    ContainerFound,
    ContainerRequest,
    RuntimeFailure,
)

_STARTED = "started"
"""A file of the bundle: it was let run, and when."""
_PAID_FOR = 0.03
"""Seconds after which a write to cgroup.procs waits again."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that each step may take."""

    create: float = 60.0
    start: float = 30.0
    kill: float = 10.0
    remove: float = 30.0
    query: float = 15.0

    @classmethod
    def within(cls, seconds: float) -> Self:
        """In proportion to what creating a container may take."""
        return cls(create=seconds, start=seconds / 2, remove=seconds / 2, query=seconds / 4)


class ContainerRuntime:
    """The containers of one node."""

    def __init__(
        self, *, state: Path, run: Path, images: ImageStore, programs: Programs, cgroups: Cgroups,
        node: spec.Facts, rootfs: Rootfs, filters: Filters, deadlines: Deadlines, conmon_cgroup: str,
        sealed: int | None, pod_cgroups: PodCgroups,
    ) -> None:  # fmt: skip
        self.exits: asyncio.Queue[ContainerExit] = asyncio.Queue()
        self.programs, self.cgroups, self.facts, self.pod_cgroups = programs, cgroups, node, pod_cgroups
        self.filters = filters
        self.exit_directory = run / "exits"
        self._run, self._images, self._deadlines = run, images, deadlines
        self._rootfs = rootfs
        self._bundles = Bundles(state, run, rootfs, filters, node)
        self._events = inotify.Inotify()
        self._supervision = Supervision(
            self.exit_directory, cgroups, self._events, self._ended, self._lost)  # fmt: skip
        self._launcher = Launcher(programs, sealed, self._events, deadlines.create)
        self._tasks: set[asyncio.Task[None]] = set()
        self._settling = Settling(cgroups, conmon_cgroup)
        self._paid = float("-inf")

    async def close(self) -> None:
        """Let go of everything; the containers run on."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._settling.close()
        self._supervision.close()
        self._events.close()
        self._launcher.close()

    # ── the life of a container ──────────────────────────────────────────────────────────────────────────────

    async def create(self, request: ContainerRequest) -> int:
        """Create a container, stopped before its first instruction; returns its pid. Raises RuntimeFailure.

        Done again: a container that stands, with a living conmon, is returned; anything else of it is removed first.
        """
        files = self._files(request.id)
        if files.bundle.exists():
            pid = self.pid(request.id)
            if pid is not None and self._supervision.watches(request.id):
                return pid
            await self.remove(request.id)
        self.prepay()
        image = await self._images.get(request.image)
        try:
            record, key = await asyncio.to_thread(self._bundles.make, request, image)
            pid = await self._launcher.create(request, files, Path(record.log))
        except BaseException as error:
            await asyncio.shield(self._undo(request.id))
            if isinstance(error, OSError | ProgramTimeout):
                raise RuntimeFailure("CreateContainerError", f"cannot create container: {error}") from error
            raise
        await self._created(files, record, key)
        return pid

    def prepay(self) -> None:
        """Pay the cgroup wait of the next create (about 11 ms after a quiet time) while something else is done."""
        if time.monotonic() - self._paid > _PAID_FOR:
            self._paid = time.monotonic()
            self._spawn(self._prepay(), "prepay")

    async def _prepay(self) -> None:
        try:
            await asyncio.to_thread(self.cgroups.prepay)
        except OSError as error:
            # It saves time only: without it the runtime waits by itself.
            logger.debug("cannot prepay the cgroup wait: %s", error)

    async def start(self, id: str) -> None:
        """Let a created container run. Done again, finds it done. Raises RuntimeFailure("RunContainerError", ...)."""
        started = self._files(id).bundle / _STARTED
        if started.exists():
            return
        if not (self.programs.kind == "crun" and crun.begin(self.programs.root / id)):
            await self._ask_to_start(id)
        with contextlib.suppress(FileNotFoundError):
            started.touch()

    async def _ask_to_start(self, id: str) -> None:
        try:
            done = await self._runtime("start", id, deadline=self._deadlines.start)
        except (ProgramTimeout, OSError) as error:
            raise RuntimeFailure("RunContainerError", f"cannot start container: {error}") from error
        # It runs already where an agent was killed between starting it and noting so.
        if done.code != 0 and (await self._states()).get(id) != "running":
            raise RuntimeFailure("RunContainerError", done.words)

    async def stop(self, id: str) -> None:
        """Ask the container's first process to end, by the signal that its image names; nothing if it is gone."""
        record = self._bundles.record(id)
        if record is not None:
            await self.signal(id, record.stop_signal)

    async def signal(self, id: str, signal: int) -> None:
        """Send a signal to the container's first process; nothing if it is gone."""
        pid = self.pid(id)
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            pidfd = syscalls.pidfd_open(pid)
            try:
                # Looked at once more behind the pidfd: the number may have been given to somebody else.
                if self.pid(id) == pid:
                    syscalls.pidfd_send_signal(pidfd, signal)
            finally:
                os.close(pidfd)

    async def kill(self, id: str) -> None:
        """Kill every process of the container and wait until none is left. Raises RuntimeFailure after a deadline."""
        record = self._bundles.record(id)
        if record is not None:
            await kill_cgroup(self.cgroups, record.cgroup, self._deadlines.kill)

    async def remove(self, id: str) -> None:
        """Remove every trace of a container but its logs; killed first if it lives. Raises RuntimeFailure."""
        files, record = self._files(id), self._bundles.record(id)
        self._supervision.forget(id)
        ended = False
        if record is not None:
            await kill_cgroup(self.cgroups, record.cgroup, self._deadlines.kill)
            ended = not await end_conmon(files)
            if not ended:
                # What the runtime had begun when it was killed is in the cgroup by now.
                await kill_cgroup(self.cgroups, record.cgroup, self._deadlines.kill)
        if not ended and (self.programs.root / id).exists():
            await self._delete(id)
        try:
            await asyncio.to_thread(self._clean, files, record)
        except OSError as error:
            raise RuntimeFailure("KillContainerError", f"cannot remove container {id}: {error}") from error

    # ── what there is ────────────────────────────────────────────────────────────────────────────────────────

    def pid(self, id: str) -> int | None:
        """The container's first process in the agent's pid namespace; None where it has ended or never was."""
        record = self._bundles.record(id)
        return None if record is None else first_process(self._files(id), record)

    async def list(self) -> Sequence[ContainerFound]:
        """Every container there is, by the directories, conmon and the runtime; their ends are watched from now on.

        A stopped one's exit is told through `exits` too, once; so is the loss of one whose conmon is gone.
        """
        states = await self._states()
        found = []
        for path in sorted((self._run / "containers").iterdir()):
            if path.name.count("_") >= 2 and not path.name.startswith("."):
                found.append(self._look(path.name, states.get(path.name)))
        await asyncio.to_thread(self._rootfs.sweep, [item.id for item in found])
        return found

    @property
    def exec_seconds(self) -> float:
        """What the runtime has to start a command in a container."""
        return self._deadlines.start

    def exec_command(self, id: str, argv: Sequence[str], pid_file: Path, *, tty: bool = False) -> Sequence[str]:
        """The command line that runs `argv` in a container as its first process runs: user, groups, capabilities,
        no_new_privs, limits and environment; `pid_file` is written once it does. OSError: the container is gone.

        Beside the pid file, with the suffix .json, what is asked of the runtime is left: delete it with that.
        """
        config = json.loads((self._files(id).bundle / "config.json").read_text())
        asked = pid_file.with_suffix(".json")
        write_private(asked, json.dumps(spec.exec_process(config["process"], argv, tty=tty)))
        base = [self.programs.runtime, f"--root={self.programs.root}", "exec", f"--process={asked}"]
        return [*base, f"--pid-file={pid_file}", id]

    def images(self) -> set[str]:
        """The ids of the images that there are containers of, whatever their state."""
        records = (self._bundles.record(path.name) for path in (self._run / "containers").iterdir())
        return {record.image for record in records if record is not None}

    def log_path(self, id: str) -> Path | None:
        """The container's log file."""
        record = self._bundles.record(id)
        return Path(record.log) if record else None

    def remove_log(self, request: ContainerRequest) -> None:
        """Delete the log directory of a pod that nobody will ask for; remove() leaves it."""
        self._bundles.remove_log(request)

    def scratch(self, id: str) -> Path:
        """Where the container's own files are on the node's disk."""
        return self._rootfs.scratch(id)

    def living_logs(self) -> Sequence[tuple[str, Path]]:
        """(id, log file) of every container whose end is still to come: what a LogRotator looks at."""
        found = ((id, self.log_path(id)) for id in self._supervision.living())
        return [(id, path) for id, path in found if path is not None]

    def reopen_log(self, id: str) -> None:
        """Make conmon write to a new log file after the old one was renamed. OSError: it does not listen."""
        self._tell(id, "2 0 0\n")

    def attach(self, id: str) -> socket.socket:
        """A connection to the container's stdio, by conmon's packets. OSError: it does not listen."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            made.connect(str(self._files(id).attach / "attach"))
        except BaseException:
            made.close()
            raise
        return made

    def resize(self, id: str, width: int, height: int) -> None:
        """Give the container's terminal its size. OSError: conmon does not listen."""
        self._tell(id, f"1 {min(height, 1000)} {min(width, 1000)}\n")  # conmon refuses more

    def exit_code(self, id: str) -> int | None:
        """What conmon has written of the container's end; None where it has not, or it is removed already."""
        try:
            return int(self._files(id).exit.read_text())
        except (OSError, ValueError):
            return None

    # ── steps ────────────────────────────────────────────────────────────────────────────────────────────────

    def _tell(self, id: str, words: str) -> None:
        fd = os.open(self._files(id).ctl, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "wb", buffering=0) as fifo:
            fifo.write(words.encode())

    def _files(self, id: str) -> Files:
        return Files(self._run, id)

    async def _runtime(self, *argv: str, deadline: float) -> Completed:
        return await run([self.programs.runtime, f"--root={self.programs.root}", *argv], deadline=deadline)

    async def _undo(self, id: str) -> None:
        try:
            await self.remove(id)
        except RuntimeFailure as failure:
            # The first failure is the one to tell; the leftovers are found by list() and by the next attempt.
            logger.warning("cannot undo the creation of container %s: %s", id, failure.message)

    async def _created(self, files: Files, record: Record, key: str) -> None:
        self._supervision.watch(self._watched(files, record), living_conmon(files))
        self._bundles.filters.learn(key, self.programs.root / files.id / "seccomp.bpf")
        self._settling.add(files)

    def _watched(self, files: Files, record: Record) -> Watched:
        message = Path(record.message) if record.message else None
        return Watched(files, record.cgroup, message, Path(record.log) if record.log_is_message else None)

    def _spawn(self, work: Any, name: str) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _ended(self, end: ContainerExit) -> None:
        record = self._bundles.record(end.id)
        # The kernel ends what is left of a container only where its first process was its pid namespace's.
        if record is None or not self.cgroups.processes(record.cgroup):
            self.exits.put_nowait(end)
        else:
            self._spawn(self._end_rest(end, record.cgroup), f"end what {end.id} left")

    async def _end_rest(self, end: ContainerExit, cgroup: str) -> None:
        try:
            await kill_cgroup(self.cgroups, cgroup, self._deadlines.kill)
        except RuntimeFailure as error:
            logger.warning("container %s has ended, but not all of its processes: %s", end.id, error.message)
        self.exits.put_nowait(end)

    def _lost(self, watched: Watched) -> None:
        self._spawn(self._end_lost(watched), f"end {watched.files.id}, whose conmon is gone")

    async def _end_lost(self, watched: Watched) -> None:
        with contextlib.suppress(RuntimeFailure):
            await kill_cgroup(self.cgroups, watched.cgroup, self._deadlines.kill)
        id = watched.files.id
        self.exits.put_nowait(ContainerExit(id, None, False, time.time(), "conmon ended before the container"))

    async def _delete(self, id: str) -> None:
        try:
            done = await self._runtime("delete", "--force", id, deadline=self._deadlines.remove)
        except (ProgramTimeout, OSError) as error:
            raise RuntimeFailure("KillContainerError", f"cannot remove container {id}: {error}") from error
        if done.code != 0 and (self.programs.root / id).exists():
            raise RuntimeFailure("KillContainerError", f"cannot remove container {id}: {done.words}")

    def _clean(self, files: Files, record: Record | None) -> None:
        # What the runtime still has of a container whose processes have ended are these files; it runs no hooks.
        remove_tree(self.programs.root / files.id)
        self._rootfs.unmount(files.id)
        if record is not None and not self.cgroups.remove(record.cgroup):
            raise OSError(f"cgroup {record.cgroup} still has processes")
        files.attach.unlink(missing_ok=True)
        files.exit.unlink(missing_ok=True)
        self._bundles.remove(files.id)

    async def _states(self) -> dict[str, str]:
        done = await self._runtime("list", "--format", "json", deadline=self._deadlines.query)
        if done.code != 0:
            raise RuntimeFailure("ContainerRuntimeNotReady", f"cannot list containers: {done.words}")
        return {item["id"]: item["status"] for item in json.loads(done.out or "[]") or []}

    def _look(self, id: str, status: str | None) -> ContainerFound:
        files, record = self._files(id), self._bundles.record(id)
        uid, name, attempt = id.split("_")
        pidfd, end = living_conmon(files), None
        alive = pidfd is not None
        if alive and not self._supervision.watches(id):
            self._settling.add(files)
        if record is not None and (status is not None or files.exit.exists()):
            end = read_exit(self._watched(files, record), self.cgroups)
            if self._supervision.watches(id) and pidfd is not None:
                os.close(pidfd)
            else:
                self._supervision.watch(self._watched(files, record), pidfd)
        elif pidfd is not None:
            os.close(pidfd)
        if alive and status == "stopped":  # conmon is about to write how it ended: that comes through `exits`
            status = "running"
        state = "stopped" if end else status if alive and status in ("created", "running") else "unknown"
        image = record.image if record is not None else ""
        return ContainerFound(id, uid, name, int(attempt), state, self.pid(id), alive, end, _started_at(files), image)


def _started_at(files: Files) -> float:
    with contextlib.suppress(FileNotFoundError):
        return (files.bundle / _STARTED).stat().st_mtime
    return 0.0
