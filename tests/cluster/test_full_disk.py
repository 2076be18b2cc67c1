"""The node's disk is full: nothing that runs notices, what is new waits, and when there is room again all goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devcluster.cluster import Cluster
from devcluster.commands import run
from devcluster.errors import DevClusterError
from podplane.kinds import NODE, POD
from tests.cluster.conftest import MakeCluster, client
from tests.cluster.test_agent_faults import facts
from tests.support.api import Api
from tests.support.objects import pod
from tests.support.waiting import eventually

NAME = "node-1"


@pytest.fixture
def own(clusters: MakeCluster) -> Iterator[Cluster]:
    """A node whose state directory is a small filesystem of its own."""
    cluster = clusters("fulldisk", nodes=1, agent=("--eviction-pressure-transition-period", "1s"))
    cluster.stop(NAME)
    state, aside = cluster.root / NAME, "/tmp/state"
    for argv in (
        ["cp", "-a", str(state), aside],
        ["mount", "-t", "tmpfs", "-o", "size=32m,mode=700", "tmpfs", str(state)],
        ["cp", "-a", f"{aside}/.", str(state)],
    ):
        run(cluster.inside(NAME, argv))
    cluster.start_node(NAME)
    yield cluster
    cluster.down()


def fill(cluster: Cluster) -> None:
    with pytest.raises(DevClusterError, match="No space left"):
        run(cluster.inside(NAME, ["dd", "if=/dev/zero", f"of={cluster.root / NAME}/ballast", "bs=64k"]))
    with pytest.raises(DevClusterError, match="No space left"):  # what is left of it, in small pieces
        run(cluster.inside(NAME, ["dd", "if=/dev/zero", f"of={cluster.root / NAME}/ballast-2", "bs=1k"]))


def empty(cluster: Cluster) -> None:
    run(cluster.inside(NAME, ["rm", "-f", f"{cluster.root / NAME}/ballast", f"{cluster.root / NAME}/ballast-2"]))


def pressure(api: Api) -> str:
    conditions = api.get(NODE, NAME, "").status.conditions
    return next(str(condition.status) for condition in conditions if condition.type == "DiskPressure")


@pytest.mark.timeout(180)
def test_a_full_disk_ends_nothing_and_is_got_over_without_a_hand(own: Cluster) -> None:
    with client(own) as api:
        for name in ("steady", "doomed"):
            api.create(pod(name))
        before = facts(api.running("steady"))
        api.running("doomed")
        agent = own.process(NAME)
        fill(own)
        eventually(lambda: pressure(api) == "True", 20, "DiskPressure")
        # Bound as if the scheduler had not seen the pressure yet.
        api.create(pod("late", nodeName=NAME))
        eventually(lambda: "new work waits" in own.log(NAME).read_text(), 10, "the word that it waits")
        # What makes room is not held up.
        api.delete(POD, "doomed", grace=1)
        api.gone(POD, "doomed")
        assert own.process(NAME) == agent
        assert api.get(POD, "late").status.phase in ("", "Pending")
        assert facts(api.running("steady")) == before
        empty(own)
        api.running("late", seconds=60)
        eventually(lambda: pressure(api) == "False", 20, "the end of DiskPressure")
        assert own.process(NAME) == agent
        # Nothing half-written: the next agent reads it all, and restarts nothing.
        own.kill(NAME)
        own.start_node(NAME)
        started = facts(api.running("late"))
        eventually(lambda: own.process(NAME) and facts(api.running("late")) == started, 20)
        assert facts(api.running("steady")) == before
        for name in ("steady", "late"):
            api.delete(POD, name, grace=1)
        for name in ("steady", "late"):
            api.gone(POD, name)
