"""The control plane is away for a while: pods go on, and on its return only what differs is written."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devcluster.cluster import Cluster
from podplane.kinds import NODE, POD
from podplane.v1 import pod_pb2
from tests.cluster.conftest import MakeCluster, client
from tests.cluster.test_agent_faults import touch
from tests.support.api import Api
from tests.support.objects import pod
from tests.support.waiting import eventually

FLAG = "/run/again"


@pytest.fixture
def own(clusters: MakeCluster) -> Iterator[Cluster]:
    cluster = clusters("reconnect", nodes=1)
    yield cluster
    cluster.down()


def exits(found: pod_pb2.Pod) -> list[int]:
    """Codes of the ended instances that the pod shows."""
    status = found.status.containerStatuses[0]
    return [state.terminated.exitCode for state in (status.state, status.lastState) if state.HasField("terminated")]


def heard(api: Api) -> int:
    """When the node's newest report was made."""
    return max(int(c.lastHeartbeatTime.ToNanoseconds()) for c in api.get(NODE, "node-1", "").status.conditions)


@pytest.mark.timeout(120)
def test_on_return_of_the_control_plane_only_differences_are_written(own: Cluster) -> None:
    steady = [f"steady-{number}" for number in range(5)]
    with client(own) as api:
        for name in steady:
            api.create(pod(name))
        api.create(pod("mortal", "/bin/sh", "-c", f"while [ ! -e {FLAG} ]; do sleep 0.05; done; exit 4",
                       restartPolicy="Never"))  # fmt: skip
        before = {name: api.running(name).metadata.resourceVersion for name in steady}
        mortal = api.running("mortal")
        report = heard(api)
    pids = own.container_pids()
    own.kill("controlplane")
    touch(own, mortal.metadata.uid, FLAG)
    eventually(lambda: len(own.container_pids()) < len(pids), 15, "the end of the container")
    own.start_control_plane()
    with client(own) as api:
        ended = api.pod_when("mortal", lambda found: found.status.phase == "Failed")
        assert exits(ended) == [4]
        eventually(lambda: heard(api) > report, 20, "the node's word")
        assert {name: api.running(name).metadata.resourceVersion for name in steady} == before
        for name in (*steady, "mortal"):
            api.delete(POD, name, grace=0)
