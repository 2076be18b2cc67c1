"""A node goes silent: it is reported, its pods are replaced, and on return the stale copies go first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devcluster.cluster import Cluster
from podplane.kinds import NODE, POD
from podplane.v1 import node_pb2, pod_pb2
from tests.cluster.conftest import MakeCluster, client
from tests.support.api import Api, is_ready
from tests.support.objects import manifest
from tests.support.waiting import eventually

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: held, namespace: default}
spec:
  replicas: 1
  selector: {matchLabels: {app: held}}
  template:
    metadata: {labels: {app: held}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: host, command: [/bin/sleep, infinity]}]
"""


@pytest.fixture
def own(clusters: MakeCluster) -> Iterator[Cluster]:
    # Three nodes: with two of them one silent node would be half the cluster.
    cluster = clusters("lost", nodes=3)
    yield cluster
    cluster.down()


def ready_condition(node: node_pb2.Node) -> node_pb2.NodeCondition:
    return next(condition for condition in node.status.conditions if condition.type == "Ready")


def replicas(api: Api) -> list[pod_pb2.Pod]:
    return [found for found in api.list(POD, "default") if found.metadata.labels["app"] == "held"]


@pytest.mark.timeout(180)
def test_a_silent_node_is_replaced_and_cleaned_on_return(own: Cluster) -> None:
    with client(own) as api:
        api.create(manifest(DEPLOYMENT)[0])
        (first,) = eventually(lambda: [found for found in replicas(api) if is_ready(found)], 30)
        node = first.spec.nodeName
        watch = api.watch(POD, "default")
        stale = own.container_pids()
        assert stale
        own.freeze(node)
        try:
            silent = eventually(lambda: _unknown(api, node), 20, f"{node} NotReady")
            assert ready_condition(silent).reason == "NodeStatusUnknown"
            replaced = eventually(
                lambda: [p for p in replicas(api) if is_ready(p) and p.metadata.uid != first.metadata.uid], 35
            )
            assert replaced[0].spec.nodeName != node
            watch.up_to(replaced[0])
            lost = [e.object for e in watch.events if e.object.metadata.uid == first.metadata.uid]
            assert any(found.status.reason == "NodeLost" for found in lost)
            assert any(
                found.status.message == f"Node {node} which was running pod {first.metadata.name} is unresponsive"
                for found in lost
            )
        finally:
            own.thaw(node)
            watch.close()
        eventually(lambda: ready_condition(api.get(NODE, node, "")).status == "True", 30, f"{node} Ready")
        eventually(lambda: not (own.container_pids() & stale), 20, "the end of the stale copies")
        # The object of the lost pod may outlive its processes by the moment in which the agent reports their end.
        eventually(lambda: [found.metadata.uid for found in replicas(api)] == [replaced[0].metadata.uid], 20)


def _unknown(api: Api, node: str) -> node_pb2.Node | None:
    found: node_pb2.Node = api.get(NODE, node, "")
    return found if ready_condition(found).status == "Unknown" else None
