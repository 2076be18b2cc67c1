"""Pod start, cost and delete: 1, 20 and 105 pods, beside podman and containerd's CRI, in one run.

A pod is one init container (`true`) and one app (`sleep`), its image on the node. Ours starts with Create on the API
and ends when a watch shows it Running, every container started; a peer's when its app runs. A pod
is deleted when the last of its processes has ended, its supervisors included.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from bench import standing
from bench.peers.base import Peer, Skipped
from bench.peers.cri import Containerd
from bench.peers.podman import Podman
from bench.phases import Phases
from bench.results import Row, median
from devcluster.cluster import CLUSTERS, Cluster, Options
from podplane.kinds import POD
from tests.support.api import Api, Watch, is_ready
from tests.support.objects import pod
from tests.support.waiting import eventually

COMMAND = "make bench"
SINGLES = 10
CROWDS = ((20, 4), (105, 8))
"""(pods, at a time)"""


class Podplane:
    """Our own cluster of one node as a runner in the race."""

    name = "podplane"

    def __init__(self, directory: Path, runtime: str = "auto") -> None:
        Cluster(directory).down()
        self.cluster = Cluster(directory, Options(runtime=runtime))
        self.cluster.up(1)
        self.cluster.await_ready(1)
        self.api = Api(self.cluster.server, self.cluster.certificate_authority, self.cluster.token_file.read_text())
        self.watch: Watch = self.api.watch(POD, "default")
        self.phases = Phases()

    @property
    def agent(self) -> int:
        """The agent's process."""
        found = self.cluster.process("node-1")
        assert found is not None
        return found.pid

    def start(self, name: str) -> None:
        self.phases.begin(name)
        self.api.create(pod(name, init=[["/bin/true"]]))
        self.phases.accepted(name)
        self.watch.wait(lambda event: event.object.metadata.name == name and is_ready(event.object), 60)

    def delete(self, name: str) -> None:
        self.api.delete(POD, name, grace=0)
        self.watch.wait(lambda event: event.object.metadata.name == name and event.type == "DELETED", 60)

    def processes(self) -> set[int]:
        return standing.family(lambda words: str(self.cluster.root) in words)

    def is_at_rest(self) -> bool:
        """Whether the init containers are gone with all that they had, which the agent leaves for later."""
        return not any(Path(f"/proc/{self.agent}/root/run/podplane/containers").glob("*_init-0_*"))

    def close(self) -> None:
        self.phases.learn(self.watch.timed)
        self.watch.close()
        self.api.channel.close()
        self.cluster.down()


def cpu_seconds() -> float:
    """CPU time that this machine has spent since boot, all processes and the kernel."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _, _, irq, softirq = map(int, fields[:7])
    return (user + nice + system + irq + softirq) / 100


Measured = dict[str, float]


def singles(runner: Peer) -> Measured:
    """p50 milliseconds of one start and one delete."""
    starts, deletes = [], []
    for number in range(SINGLES):
        name = f"single-{number}"
        starts.append(_timed(lambda name=name: runner.start(name)))  # type: ignore[misc]
        handles = list(_handles(runner.processes()))
        deletes.append(_timed(lambda name=name, handles=handles: _delete(runner, name, handles)))  # type: ignore[misc]
        for handle in handles:
            os.close(handle)
    return {"start": median(starts), "least": min(starts), "delete": median(deletes)}


def _handles(pids: Iterable[int]) -> Iterator[int]:
    """A pidfd of each process that is still there: a runtime's helpers come and go."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            yield os.pidfd_open(pid)


def _delete(runner: Peer, name: str, handles: Sequence[int]) -> None:
    runner.delete(name)
    for handle in handles:
        if not select.select([handle], [], [], 60)[0]:
            raise TimeoutError(f"a process of pod {name} outlived it by a minute")


def crowd(runner: Peer, pods: int, at_once: int) -> Measured:
    """Pods a second, milliseconds of CPU a pod, and what the pods cost while they stand."""
    names = [f"crowd-{pods}-{number}" for number in range(pods)]
    before = cpu_seconds()
    with ThreadPoolExecutor(at_once) as pool:
        seconds = _timed(lambda: list(pool.map(runner.start, names))) / 1000
        found = {"rate": pods / seconds, "seconds": seconds, "cpu": (cpu_seconds() - before) * 1000 / pods}
        found |= _stand(runner, pods)
        list(pool.map(runner.delete, names))
    eventually(lambda: not runner.processes(), 60, "the end of every pod's processes")
    return {f"{key}-{pods}": value for key, value in found.items()}


def _stand(runner: Peer, pods: int) -> Measured:
    processes = runner.processes()
    found = {"memory": standing.pss(standing.supervisors(processes)) / pods, "processes": len(processes) / pods}
    if isinstance(runner, Podplane):
        eventually(runner.is_at_rest, 30, "what the starts have left to be cleared away")
        found |= {"agent": standing.pss([runner.agent]), "idle": standing.idle(runner.agent)}
    return found


def _timed(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return (time.perf_counter() - begun) * 1000


def race(runner: Peer, crowds: Sequence[tuple[int, int]]) -> Measured:
    """Every figure of one runner."""
    try:
        found = singles(runner)
        for pods, at_once in crowds:
            found |= crowd(runner, pods, at_once)
        return found
    finally:
        runner.close()


CLAIMS = (
    ("start", "one pod, Create to Running, p50 of 10", "ms", 60.0, False),
    ("least", "one pod, Create to Running, least of 10", "ms", None, False),
    ("delete", "delete one pod, grace 0, p50 of 10", "ms", 40.0, False),
    ("rate-20", "20 pods, 4 at a time", "pods/s", 40.0, True),
    ("rate-105", "105 pods, 8 at a time", "pods/s", 40.0, True),
    ("seconds-105", "105 pods, all Running", "s", 4.5, False),
    ("cpu-105", "CPU of the machine a pod, 105 pods", "ms", None, False),
    ("memory-105", "supervisors' memory a pod", "MB PSS", 0.8, False),
    ("processes-105", "processes a pod of one app", "", 2.0, False),
    ("agent-105", "agent's memory with 105 pods", "MB PSS", 60.0, False),
    ("idle-105", "agent's CPU with 105 idle pods", "% of a core", 0.5, False),
)
PEERS: tuple[tuple[str, Callable[[Path], Peer], Sequence[tuple[int, int]]], ...] = (
    ("containerd with crun", Containerd, CROWDS),
    ("containerd with runc", lambda directory: Containerd(directory, "runc"), CROWDS[:1]),
    ("podman", Podman, CROWDS[:1]),
)


def run(say: Callable[[str], None]) -> tuple[list[Row], Phases]:
    """Race; returns the rows and where our own time went."""
    directory = CLUSTERS / "bench"
    say("pods: podplane")
    own = Podplane(directory / "podplane")
    ours = race(own, CROWDS)
    with_runc = _with_runc(directory / "podplane-runc", say)
    rows: list[Row] = []
    for label, make, crowds in PEERS:
        say(f"pods: {label}")
        try:
            made = make(directory / label.replace(" ", "-"))
            name, theirs = made.name, race(made, crowds)
        except Skipped as skipped:
            name, theirs = f"{label}, {skipped}", {}
        rows += _beside(ours, theirs, name, first=not rows)
    rows += [_share(row) for row in rows[:1] if row.ratio is not None]
    rows += [replace(_row(key, with_runc, {}, "ourselves with runc"), goal=None) for key in with_runc]
    return rows, own.phases


def _beside(ours: Measured, theirs: Measured, peer: str, *, first: bool) -> list[Row]:
    """The rows of one peer. The first one's carry our goals, and what only we have; a peer that is absent has one."""
    if first:
        return [_row(key, ours, theirs, peer if key in theirs or not theirs else "") for key, *_ in CLAIMS]
    shared = [key for key, *_ in CLAIMS if key in theirs] or ["start"]
    return [replace(_row(key, ours, theirs, peer), goal=None) for key in shared]


def _share(start: Row) -> Row:
    """The start as a share of the peer's in the same run: it holds on a slow machine too."""
    claim = "one pod, Create to Running, as a share of the peer's"
    return replace(start, claim=claim, unit="x", ours=start.ratio, peer=None, goal=0.35)


def _with_runc(directory: Path, say: Callable[[str], None]) -> Measured:
    """Our own single pods and first crowd under runc, without a goal."""
    if shutil.which("runc") is None:
        return {}
    say("pods: podplane with runc")
    found = race(Podplane(directory, "runc"), CROWDS[:1])
    return {key: found[key] for key in ("start", "rate-20")}


def _row(key: str, ours: Measured, theirs: Measured, peer: str) -> Row:
    claim, unit, goal, more = next(rest for name, *rest in CLAIMS if name == key)
    return Row(str(claim), str(unit), ours[key], theirs.get(key), peer, goal, bool(more), COMMAND)  # type: ignore[arg-type]


def blame(rows: Sequence[Row], phases: Phases) -> str:
    """What holds back a missed goal: the largest phases, and how far this machine's cores go."""
    missed = list(dict.fromkeys(row.claim for row in rows if row.met is False))
    if not missed:
        return ""
    largest = sorted(phases.medians.items(), key=lambda item: -item[1])[:3]
    cpu = next((row.ours for row in rows if row.claim.startswith("CPU of the machine") and row.ours), None)
    bound = f"; {cpu:.0f} ms of CPU a pod allow {1000 * (os.cpu_count() or 1) / cpu:.0f} pods/s" if cpu else ""
    words = ", ".join(f"{name} {value:.1f} ms" for name, value in largest)
    return f"Missed: {'; '.join(missed)}. The largest phases: {words}{bound}."
