"""Where pods go, and what people are told when they cannot go anywhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devcluster.cluster import Cluster
from podplane.kinds import NODE, POD
from podplane.v1 import node_pb2, pod_pb2
from tests.cluster.conftest import MakeCluster, client
from tests.support.api import Api
from tests.support.objects import pod


def scheduled(found: pod_pb2.Pod) -> pod_pb2.PodCondition | None:
    return next((condition for condition in found.status.conditions if condition.type == "PodScheduled"), None)


def test_a_pod_that_fits_nowhere_says_why(cluster: Cluster, api: Api) -> None:
    huge = pod("huge")
    huge.spec.containers[0].resources.requests["cpu"] = "1000"
    api.create(huge)
    try:
        found = api.pod_when("huge", lambda found: (c := scheduled(found)) and c.reason == "Unschedulable")
        condition = scheduled(found)
        assert condition is not None
        assert found.status.phase == "Pending"
        assert condition.status == "False"
        assert condition.message.startswith("0/3 nodes are available: 3 Insufficient cpu.")
    finally:
        api.delete(POD, "huge")
        api.gone(POD, "huge")


def test_a_node_selector_chooses_and_a_cordon_refuses(cluster: Cluster, api: Api) -> None:
    _cordon(api, "node-2", True)
    try:
        api.create(pod("chosen", nodeSelector={"kubernetes.io/hostname": "node-2"}))
        found = api.pod_when("chosen", lambda found: (c := scheduled(found)) and c.reason == "Unschedulable")
        condition = scheduled(found)
        assert condition is not None
        assert "1 node(s) were unschedulable" in condition.message
        assert "2 node(s) didn't match Pod's node affinity/selector" in condition.message
        _cordon(api, "node-2", False)
        assert api.running("chosen").spec.nodeName == "node-2"
    finally:
        _cordon(api, "node-2", False)
        api.delete(POD, "chosen", grace=0)
        api.gone(POD, "chosen")


def test_replicas_spread_over_the_nodes(cluster: Cluster, api: Api) -> None:
    names = [f"spread-{index}" for index in range(3)]
    for name in names:
        made = pod(name)
        made.metadata.labels["app"] = "spread"
        api.create(made)
    try:
        assert {api.running(name).spec.nodeName for name in names} == set(cluster.nodes)
    finally:
        for name in names:
            api.delete(POD, name, grace=0)
        for name in names:
            api.gone(POD, name)


@pytest.fixture
def small(clusters: MakeCluster) -> Iterator[Cluster]:
    cluster = clusters("joining", nodes=1)
    yield cluster
    cluster.down()


def test_a_waiting_pod_starts_when_a_node_that_fits_joins(small: Cluster) -> None:
    with client(small) as api:
        api.create(pod("patient", nodeSelector={"kubernetes.io/hostname": "node-2"}))
        api.pod_when("patient", lambda found: (c := scheduled(found)) and c.reason == "Unschedulable")
        small.up(2)
        assert api.running("patient").spec.nodeName == "node-2"


def _cordon(api: Api, name: str, unschedulable: bool) -> None:
    node: node_pb2.Node = api.get(NODE, name, "")
    node.spec.unschedulable = unschedulable
    node.metadata.resourceVersion = ""
    api.update(node)
