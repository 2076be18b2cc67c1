"""A node that is short of memory: it says so, gives pods up by their rank, takes no new one that asks for nothing."""

from __future__ import annotations

import pytest

from devcluster.cluster import Cluster
from podplane.kinds import EVENT, NODE
from podplane.v1 import pod_pb2
from tests.cluster.conftest import MakeCluster, client
from tests.support.api import Api
from tests.support.objects import pod
from tests.support.waiting import eventually

NAME = "node-1"
EATER = (
    "/usr/bin/python3",
    "-S",
    "-c",
    "import signal; data = bytearray(40 << 20); print('eaten', flush=True); signal.pause()",
)
# More than any machine has, so that the node is short of it whatever the machine does meanwhile.
SHORT = {"PODPLANE_EVICTION_HARD": "memory.available<1000Ti"}


def _wanting(name: str, request: str, limit: str = "") -> pod_pb2.Pod:
    made = pod(name, *EATER)
    container = made.spec.containers[0]
    for resource, quantity in (("memory", request), ("cpu", "10m")):
        if request:
            container.resources.requests[resource] = quantity
        if limit:
            container.resources.limits[resource] = limit if resource == "memory" else quantity
    return made


@pytest.mark.timeout(120)
def test_pods_are_given_up_by_rank_until_the_node_has_enough(clusters: MakeCluster) -> None:
    cluster = clusters("pressure", nodes=1, agent=("--eviction-pressure-transition-period", "1s"))
    with client(cluster) as api:
        order = ["best-effort", "beyond", "within"]
        for made in (_wanting("within", "200Mi", "200Mi"), _wanting("beyond", "1Mi"), _wanting("best-effort", "")):
            api.create(made)
        for name in order:
            api.running(name)
            eventually(lambda name=name: api.logs(name) == b"eaten\n", what="its memory")  # type: ignore[misc]
        _restart(cluster, short=True)
        ended = [api.pod_when(name, lambda found: found.status.phase == "Failed") for name in order]
        for found, blame in zip(ended, ("request is 0", "request is 1Mi", ""), strict=True):
            assert found.status.reason == "Evicted"
            assert found.status.message.startswith(
                "The node was low on resource: memory. Threshold quantity: 1000Ti, available: "
            )
            # Who keeps within its request is not blamed.
            assert blame in found.status.message
            assert bool(blame) == ("Container main was using" in found.status.message)
            assert (_condition(found).reason, _condition(found).status) == ("TerminationByKubelet", "True")
        times = [_condition(found).lastTransitionTime.ToNanoseconds() for found in ended]
        assert times == sorted(times), "the rank was not kept"
        assert _pressure(api) == "True"
        assert "Attempting to reclaim memory" in [
            each.message for each in api.list(EVENT) if each.reason == "EvictionThresholdMet"
        ]
        api.create(pod("late"))
        late = api.pod_when("late", lambda found: found.status.conditions)
        assert "node.kubernetes.io/memory-pressure" in late.status.conditions[0].message
        _restart(cluster, short=False)
        api.running("late")
        assert _pressure(api) == "False"
    cluster.down()


def _restart(cluster: Cluster, *, short: bool) -> None:
    cluster.stop(NAME)
    cluster.start_node(NAME, SHORT if short else None)


def _condition(found: pod_pb2.Pod) -> pod_pb2.PodCondition:
    return next(each for each in found.status.conditions if each.type == "DisruptionTarget")


def _pressure(api: Api) -> str:
    conditions = api.get(NODE, NAME, "").status.conditions
    return next(str(condition.status) for condition in conditions if condition.type == "MemoryPressure")
