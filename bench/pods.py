"""Pod start and delete: 1, 20 and 100 pods, beside podman and containerd's CRI, in one run.

A pod is one init container (`true`) and one app (`sleep`), its image on the node. Ours starts with Create on the API
and ends when a watch shows it Running, every container started; a peer's when its app runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bench.peers.base import Peer, Skipped
from bench.peers.cri import Containerd
from bench.peers.podman import Podman
from bench.phases import Phases
from bench.results import Row, median
from devcluster.cluster import CLUSTERS, Cluster
from podplane.kinds import POD
from tests.support.api import Api, Watch, is_ready
from tests.support.objects import pod
from tests.support.waiting import eventually

COMMAND = "make bench"
SINGLES = 10


class Podplane:
    """Our own cluster of one node as a runner in the race."""

    name = "podplane"

    def __init__(self, directory: Path) -> None:
        Cluster(directory).down()
        self.cluster = Cluster(directory)
        self.cluster.up(1)
        self.cluster.await_ready(1)
        self.api = Api(self.cluster.server, self.cluster.certificate_authority, self.cluster.token_file.read_text())
        self.watch: Watch = self.api.watch(POD, "default")
        self.phases = Phases()

    def start(self, name: str) -> None:
        self.phases.begin(name)
        self.api.create(pod(name, init=[["/bin/true"]]))
        self.phases.accepted(name)
        self.watch.wait(lambda event: event.object.metadata.name == name and is_ready(event.object), 60)

    def delete(self, name: str) -> None:
        self.api.delete(POD, name, grace=0)
        self.watch.wait(lambda event: event.object.metadata.name == name and event.type == "DELETED", 60)

    def quiet(self) -> None:
        """Return when no process of a pod is left on the node."""
        eventually(lambda: not self.cluster.container_pids(), 60, "an empty node")

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


def singles(runner: Peer) -> tuple[float, float]:
    """p50 milliseconds of one start and one delete."""
    starts, deletes = [], []
    for number in range(SINGLES):
        name = f"single-{number}"
        starts.append(_timed(lambda name=name: runner.start(name)))  # type: ignore[misc]
        deletes.append(_timed(lambda name=name: runner.delete(name)))  # type: ignore[misc]
    return median(starts), median(deletes)


def crowd(runner: Peer, pods: int, at_once: int) -> tuple[float, float]:
    """Pods a second, and milliseconds of CPU a pod."""
    names = [f"crowd-{pods}-{number}" for number in range(pods)]
    before = cpu_seconds()
    with ThreadPoolExecutor(at_once) as pool:
        seconds = _timed(lambda: list(pool.map(runner.start, names))) / 1000
        cpu = (cpu_seconds() - before) * 1000 / pods
        list(pool.map(runner.delete, names))
    return pods / seconds, cpu


def _timed(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return (time.perf_counter() - begun) * 1000


@contextmanager
def runner(make: Callable[[Path], Peer], directory: Path) -> Iterator[Peer]:
    made = make(directory)
    try:
        yield made
    finally:
        made.close()


Measured = dict[str, float]


def measure(make: Callable[[Path], Peer], directory: Path, crowds: Sequence[tuple[int, int]]) -> tuple[str, Measured]:
    """Every figure of one runner; where the peer is not here its name says so and the figures are absent."""
    try:
        with runner(make, directory) as one:
            start, delete = singles(one)
            found = {"start": start, "delete": delete}
            for pods, at_once in crowds:
                found[f"rate-{pods}"], found[f"cpu-{pods}"] = crowd(one, pods, at_once)
            return one.name, found
    except Skipped as skipped:
        return str(skipped), {}


CLAIMS = (
    ("start", "one pod, Create to Running", "ms", 90.0, False),
    ("delete", "delete one pod, grace 0", "ms", 40.0, False),
    ("rate-20", "20 pods, 4 at a time", "pods/s", 25.0, True),
    ("rate-100", "100 pods, 8 at a time", "pods/s", 25.0, True),
    ("cpu-20", "CPU a pod, 20 pods", "ms", None, False),
    ("cpu-100", "CPU a pod, 100 pods", "ms", None, False),
)


def run(say: Callable[[str], None]) -> tuple[list[Row], Phases]:
    """Race; returns the rows and where our own time went."""
    directory = CLUSTERS / "bench"
    say("pods: podplane")
    own = Podplane(directory / "podplane")
    try:
        start, delete = singles(own)
        ours = {"start": start, "delete": delete}
        for pods, at_once in ((20, 4), (100, 8)):
            ours[f"rate-{pods}"], ours[f"cpu-{pods}"] = crowd(own, pods, at_once)
            own.quiet()
    finally:
        own.close()
    rows = []
    for make in (Containerd, Podman):
        say(f"pods: {make.__name__.lower()}")
        name, theirs = measure(
            make, directory / make.__name__.lower(), ((20, 4), (100, 8)) if make is Containerd else ((20, 4),)
        )
        rows += [
            Row(claim, unit, ours[key], theirs.get(key), name, goal, more, COMMAND)
            for key, claim, unit, goal, more in CLAIMS
        ]
    return rows, own.phases
