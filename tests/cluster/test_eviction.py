"""A node that is short of memory, process ids or disk: it says so, and gives pods up by their rank."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devcluster.cluster import Cluster
from podplane import quantity
from podplane.kinds import EVENT, NODE, POD
from podplane.v1 import pod_pb2
from tests.cluster.conftest import MakeCluster, client
from tests.support.api import Api
from tests.support.objects import pod
from tests.support.waiting import eventually

NAME = "node-1"
MEBIBYTE = 1 << 20
EATER = (
    "/usr/bin/python3",
    "-S",
    "-c",
    "import signal; data = bytearray(40 << 20); print('eaten', flush=True); signal.pause()",
)
RESERVED = (
    "--system-reserved",
    "cpu=100m,memory=200Mi,ephemeral-storage=1Gi",
    "--kube-reserved",
    "cpu=150m,memory=56Mi",
)


def _wanting(name: str, request: str, limit: str = "") -> pod_pb2.Pod:
    made = pod(name, *EATER)
    container = made.spec.containers[0]
    for resource, amount in (("memory", request), ("cpu", "10m")):
        if request:
            container.resources.requests[resource] = amount
        if limit:
            container.resources.limits[resource] = limit if resource == "memory" else amount
    return made


@pytest.fixture(scope="module")
def own(clusters: MakeCluster) -> Iterator[Cluster]:
    cluster = clusters("pressure", nodes=1, agent=("--eviction-pressure-transition-period", "1s", *RESERVED))
    yield cluster
    cluster.down()


def test_a_node_offers_its_capacity_less_what_is_reserved(own: Cluster) -> None:
    with client(own) as api:
        status = api.get(NODE, NAME, "").status

    def less(name: str) -> int:
        return quantity.milli(status.capacity[name]) - quantity.milli(status.allocatable[name])

    disk = quantity.value(status.capacity["ephemeral-storage"])
    assert less("cpu") == 250
    assert less("memory") == (256 + 100) * MEBIBYTE * 1000  # by default it evicts below 100 Mi
    assert less("ephemeral-storage") // 1000 == pytest.approx((1 << 30) + disk // 10, abs=4096)
    assert less("pods") == 0


@pytest.mark.timeout(120)
def test_pods_are_given_up_by_rank_until_the_node_has_enough(own: Cluster) -> None:
    with client(own) as api:
        order = ["best-effort", "beyond", "within"]
        for made in (_wanting("within", "200Mi", "200Mi"), _wanting("beyond", "1Mi"), _wanting("best-effort", "")):
            api.create(made)
        for name in order:
            api.running(name)
            eventually(lambda name=name: api.logs(name) == b"eaten\n", what="its memory")  # type: ignore[misc]
        _restart(own, "memory.available")
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
        assert _pressure(api, "MemoryPressure") == "True"
        assert "Attempting to reclaim memory" in [
            each.message for each in api.list(EVENT) if each.reason == "EvictionThresholdMet"
        ]
        api.create(pod("late"))
        late = api.pod_when("late", lambda found: found.status.conditions)
        assert "node.kubernetes.io/memory-pressure" in late.status.conditions[0].message
        _restart(own)
        api.running("late")
        assert _pressure(api, "MemoryPressure") == "False"
        api.delete(POD, "late", grace=0)
        api.gone(POD, "late")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("signal", "condition", "resource", "script"),
    [
        ("pid.available", "PIDPressure", "pids", "for i in $(seq COUNT); do sleep infinity & done; echo done; wait"),
        ("nodefs.available", "DiskPressure", "ephemeral-storage",
         "head -c COUNT000000 /dev/zero >/var/tmp/file; echo done; exec sleep infinity"),
    ],
    ids=["pids", "disk"],
)  # fmt: skip
def test_who_has_most_of_what_is_short_goes_first(
    own: Cluster, signal: str, condition: str, resource: str, script: str
) -> None:
    order = ["most", "more", "least"]
    with client(own) as api:
        for name, count in zip(order, (9, 6, 3), strict=True):
            api.create(pod(name, "/bin/sh", "-c", script.replace("COUNT", str(count)), terminationGracePeriodSeconds=0))
        for name in order:
            api.running(name)
            eventually(lambda name=name: api.logs(name) == b"done\n", what=name)  # type: ignore[misc]
        _restart(own, signal)
        ended = [api.pod_when(name, lambda found: found.status.phase == "Failed") for name in order]
        for found in ended:
            assert found.status.reason == "Evicted"
            assert found.status.message.startswith(f"The node was low on resource: {resource}. Threshold quantity: ")
        times = [_condition(found).lastTransitionTime.ToNanoseconds() for found in ended]
        assert times == sorted(times), "the rank was not kept"
        assert _pressure(api, condition) == "True"
        _restart(own)
        eventually(lambda: _pressure(api, condition) == "False", what="the end of the pressure")
        for name in order:
            api.delete(POD, name, grace=0)
            api.gone(POD, name)


def _restart(cluster: Cluster, short: str = "") -> None:
    """The next agent is short of what that signal counts, whatever the machine does meanwhile: none has so much."""
    cluster.stop(NAME)
    cluster.start_node(NAME, {"PODPLANE_EVICTION_HARD": f"{short}<1000Ti"} if short else None)


def _condition(found: pod_pb2.Pod) -> pod_pb2.PodCondition:
    return next(each for each in found.status.conditions if each.type == "DisruptionTarget")


def _pressure(api: Api, type_: str) -> str:
    conditions = api.get(NODE, NAME, "").status.conditions
    return next(str(condition.status) for condition in conditions if condition.type == type_)
