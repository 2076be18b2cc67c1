"""The node's cgroups: which layout there is, the cgroups of pods, who is in them, and their end.

Knows paths below the node's root (`podplane/[<qos>/]pod<uid>/<container>_<attempt>`), v1 (one tree per controller)
and v2 (one tree). Never writes a limit: those of containers are the OCI runtime's, those above are limits.py's. Fails
with OSError.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nodeagent import smallfiles

ROOT = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 62
"""What v1 has for no limit is a little less than 2^63."""


@dataclass(frozen=True, slots=True)
class Cgroups:
    """The layout: version 1 or 2, and every mounted tree."""

    version: int
    trees: tuple[Path, ...]
    hybrid: bool = False
    """v1 controllers with a v2 tree mounted at `unified`: a layout that crun refuses."""
    strays: tuple[Path, ...] = ()
    """Where no tree is mounted, but crun makes plain directories and files as if one were (v1)."""

    @classmethod
    def detect(cls, mountinfo: str | None = None) -> Cgroups:
        """Read the layout from this mount namespace. Raises OSError where no cgroup filesystem is mounted."""
        text = mountinfo if mountinfo is not None else Path("/proc/self/mountinfo").read_text()
        found = dict(_cgroup_mounts(text))
        trees = tuple(path for path, kind in found.items() if kind == "cgroup")
        if trees:
            # The v2 tree of a hybrid comes last: it limits nothing, but runc makes cgroups there as well.
            other = tuple(path for path, kind in found.items() if kind == "cgroup2")
            return cls(1, trees + other, hybrid=bool(other), strays=() if other else (trees[0].parent / "unified",))
        if found:
            return cls(2, (next(iter(found)),))
        raise OSError(errno.ENOENT, "no cgroup filesystem is mounted")

    def paths(self, cgroup: str) -> list[str]:
        """Where a cgroup is, one path a tree."""
        return [f"{tree}/{cgroup}" for tree in self.trees]

    def create(self, cgroup: str) -> None:
        """Make a cgroup in every tree; done again, finds it done."""
        for path in self.paths(cgroup):
            if "/cpuset/" in path:
                _make_cpuset(Path(path))
            with contextlib.suppress(FileExistsError):
                try:
                    os.mkdir(path)
                except FileNotFoundError:
                    os.makedirs(path)

    def processes(self, cgroup: str) -> set[int]:
        """The processes in a cgroup and below it."""
        found: set[int] = set()
        for path in self.paths(cgroup):
            for directory in [path, *_below(path)]:
                with contextlib.suppress(OSError):
                    found.update(map(int, smallfiles.read(f"{directory}/cgroup.procs").split()))
        return found

    def enter(self, cgroup: str, pid: int) -> None:
        """Move a process into a cgroup. The first write after a quiet time waits for RCU: call it in a thread."""
        for path in self.paths(cgroup):
            smallfiles.tell(f"{path}/cgroup.procs", b"%d" % pid)

    def kill(self, cgroup: str) -> set[int]:
        """Send SIGKILL to everything in a cgroup; returns whom: nobody, once it is empty."""
        whole = self.trees[0] / cgroup / "cgroup.kill"
        if self.version == 2 and whole.exists():
            pids = self.processes(cgroup)
            whole.write_text("1")
            return pids
        return self._kill_each(cgroup)

    def _kill_each(self, cgroup: str) -> set[int]:
        pids = self.processes(cgroup)
        # More than one are frozen first: a fork bomb would outrun the loop. A frozen process dies when it is thawed.
        # One alone is not worth the wait: what it forks meanwhile is met by the next call.
        with _frozen(self.paths(cgroup)) if len(pids) > 1 else contextlib.nullcontext():
            pids = self.processes(cgroup) if len(pids) > 1 else pids
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return pids

    def remove(self, cgroup: str) -> bool:
        """Remove a cgroup and those below it; False while a process keeps one."""
        gone = True
        for stray in self.strays:
            # Plain directories and files: rmdir would not do, and a tree mounted there since is left alone.
            if not os.path.ismount(stray):
                shutil.rmtree(stray / cgroup, ignore_errors=True)
        for path in self.paths(cgroup):
            for directory in [*reversed(_below(path)), path]:
                gone = _remove(directory) and gone
        return gone

    def oom_kills(self, cgroup: str) -> int:
        """How many processes of a cgroup the kernel's OOM killer has ended."""
        with contextlib.suppress(OSError):
            for line in self._memory(cgroup).read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        return 0

    def memory_bounds(self, cgroup: str) -> tuple[int | None, int | None]:
        """(limit, peak) of a cgroup's memory in bytes; None: there is none, or this kernel does not say."""
        names = ("max", "peak") if self.version == 2 else ("limit_in_bytes", "max_usage_in_bytes")
        limit, peak = (self._bytes(cgroup, f"memory.{name}") for name in names)
        return limit, peak

    def _bytes(self, cgroup: str, file: str) -> int | None:
        try:
            found = int((self.tree_of("memory") / cgroup / file).read_text())
        except (OSError, ValueError):  # "max"
            return None
        return found if found < _NO_LIMIT else None

    def _memory(self, cgroup: str) -> Path:
        return self.tree_of("memory") / cgroup / ("memory.events" if self.version == 2 else "memory.oom_control")

    def tree_of(self, controller: str) -> Path:
        """The tree in which a controller has its files."""
        if self.version == 2:
            return self.trees[0]
        return next((tree for tree in self.trees if controller in tree.name.split(",")), self.trees[0])

    def prepay(self) -> None:
        """Pay the RCU wait of the first cgroup.procs write after a quiet time: call in a thread while others work.

        Moves nothing: the agent is written to where it already is. It must be cgroup.procs and a pid: the kernel
        takes the lock that waits for neither `tasks` nor 0.
        """
        tree = self.trees[0]
        own = _own_cgroup("" if self.version == 2 else tree.name)
        smallfiles.tell(tree / own.lstrip("/") / "cgroup.procs", b"%d" % os.getpid())


def _own_cgroup(controller: str) -> str:
    for line in smallfiles.read("/proc/self/cgroup").decode().splitlines():
        _number, names, path = line.split(":", 2)
        if controller in (names.removeprefix("name=").split(",") if names else [""]):
            return path
    return "/"


def _cgroup_mounts(mountinfo: str) -> Iterator[tuple[Path, str]]:
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind = right.split(" ", 1)[0]
        if kind in ("cgroup", "cgroup2"):
            yield Path(left.split(" ")[4]), kind


def _make_cpuset(path: Path) -> None:
    # v1's cpuset starts empty and then takes no process: inherit, from the top down.
    missing = [item for item in [path, *path.parents] if not item.exists()]
    for directory in reversed(missing):
        directory.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            with contextlib.suppress(FileNotFoundError):
                if not smallfiles.read(directory / name).strip():
                    smallfiles.tell(directory / name, smallfiles.read(directory.parent / name))


def _below(path: str) -> list[str]:
    """Every cgroup below one, parents first. A directory of a cgroup tree has two links and one for each below it."""
    found, left = [], [path]
    while left:
        directory = left.pop()
        try:
            below = os.lstat(directory).st_nlink - 2
            names = [entry.path for entry in os.scandir(directory) if entry.is_dir()] if below else []
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise
            names = []
        found += names
        left += names
    return found


def _remove(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise
    return True


@contextlib.contextmanager
def _frozen(paths: list[str]) -> Iterator[None]:
    freezers = [path for path in (Path(each, "freezer.state") for each in paths) if path.exists()]
    for freezer in freezers:
        freezer.write_text("FROZEN")
    try:
        yield
    finally:
        for freezer in freezers:
            freezer.write_text("THAWED")
