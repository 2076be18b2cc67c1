"""The network of real agents, taken apart by somebody else."""

from __future__ import annotations

import subprocess

import pytest

from devcluster.cluster import Cluster
from podplane.kinds import NODE, POD
from podplane.v1 import node_pb2
from tests.support.api import Api
from tests.support.objects import pod
from tests.support.waiting import eventually


def on(cluster: Cluster, node: str, line: str) -> str:
    argv = cluster.inside(node, line.split())
    return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=True).stdout


@pytest.mark.parametrize(
    ("damage", "shown"),
    [
        ("ip route flush proto 112", "ip route show proto 112"),
        ("nft delete table bridge podplane", "nft list tables bridge"),
        ("sysctl -w net.ipv4.ip_forward=0", "sysctl net.ipv4.ip_forward"),
    ],
)
def test_an_agent_mends_its_network_within_five_seconds(cluster: Cluster, damage: str, shown: str) -> None:
    before = eventually(lambda: on(cluster, "node-1", shown), what="the network as it was")
    on(cluster, "node-1", damage)
    eventually(lambda: on(cluster, "node-1", shown) == before, seconds=5, what=f"mended after {damage}")


def test_a_node_without_a_network_says_why_and_its_pods_wait(cluster: Cluster, api: Api) -> None:
    """Somebody takes the bridge away and its name for something else; pods of the host's network need neither."""
    name = "node-3"
    here = {"kubernetes.io/hostname": name}
    untaint = [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]
    cluster.freeze(name)  # it would be faster than the second line
    on(cluster, name, "ip link delete podplane0")
    on(cluster, name, "ip link add podplane0 type veth peer name foreign0")
    cluster.thaw(name)
    try:
        found = eventually(lambda: _ready(api, name) if _ready(api, name).status == "False" else None, 20, "not ready")
        assert found.reason == "NetworkPluginNotReady"
        assert "podplane0" in found.message
        api.create(pod("waits", nodeSelector=here, tolerations=untaint))
        api.create(pod("runs", nodeSelector=here, tolerations=untaint, hostNetwork=True))
        api.running("runs")
        waiting = api.pod_when("waits", lambda each: each.spec.nodeName == name and each.status.containerStatuses)
        assert waiting.status.containerStatuses[0].state.waiting.reason == "ContainerCreating"
        on(cluster, name, "ip link delete foreign0")
        api.running("waits")
    finally:
        if "foreign0" in on(cluster, name, "ip -o link show type veth"):
            on(cluster, name, "ip link delete foreign0")
        for each in ("waits", "runs"):
            if api.find(POD, each):
                api.delete(POD, each, grace=0)
                api.gone(POD, each)
        eventually(lambda: _ready(api, name).status == "True", 20, "the node as it was")


def _ready(api: Api, name: str) -> node_pb2.NodeCondition:
    node: node_pb2.Node = api.get(NODE, name, "")
    return next(each for each in node.status.conditions if each.type == "Ready")
