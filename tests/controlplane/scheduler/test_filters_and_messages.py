"""Filters, scores and messages as tables."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from controlplane.scheduler import filters, scores
from controlplane.scheduler.messages import diagnose
from controlplane.scheduler.nodeinfo import NodeInfo, read_node
from controlplane.scheduler.podinfo import PodInfo, Shape, pod_requests, read_pod, read_shape
from podplane.v1 import node_pb2, pod_pb2
from tests.controlplane.controllers import world

Edit = Callable[[pod_pb2.Pod, node_pb2.Node], object]


def _cordon(node: node_pb2.Node) -> bool:
    node.spec.unschedulable = True
    return True


def _affinity(pod: pod_pb2.Pod, operator: str, *values: str) -> bool:
    required = pod.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution
    required.nodeSelectorTerms.add().matchExpressions.add(key="disk", operator=operator, values=values)
    return True


CASES: dict[str, tuple[Edit, tuple[str, ...]]] = {
    "nothing asked": (lambda p, n: None, ()),
    "cordoned": (lambda p, n: _cordon(n), (filters.UNSCHEDULABLE,)),
    "cordon tolerated": (
        lambda p, n: (
            _cordon(n),
            p.spec.tolerations.add(key="node.kubernetes.io/unschedulable", operator="Exists"),
        ),
        (),
    ),
    "taint": (
        lambda p, n: n.spec.taints.add(key="gpu", value="yes", effect="NoSchedule"),
        ("node(s) had untolerated taint {gpu: yes}",),
    ),
    "taint tolerated": (
        lambda p, n: (
            n.spec.taints.add(key="gpu", value="yes", effect="NoSchedule"),
            p.spec.tolerations.add(key="gpu", value="yes"),
        ),
        (),
    ),
    "taint with another value": (
        lambda p, n: (
            n.spec.taints.add(key="gpu", value="yes", effect="NoExecute"),
            p.spec.tolerations.add(key="gpu", operator="Equal", value="no"),
        ),
        ("node(s) had untolerated taint {gpu: yes}",),
    ),
    "soft taint": (lambda p, n: n.spec.taints.add(key="gpu", effect="PreferNoSchedule"), ()),
    "selector": (lambda p, n: p.spec.nodeSelector.update(disk="ssd"), (filters.NODE_AFFINITY,)),
    "selector met": (lambda p, n: (p.spec.nodeSelector.update(disk="ssd"), n.metadata.labels.update(disk="ssd")), ()),
    "affinity NotIn, label absent": (lambda p, n: _affinity(p, "NotIn", "hdd"), ()),
    "affinity Exists, label absent": (lambda p, n: _affinity(p, "Exists"), (filters.NODE_AFFINITY,)),
    "affinity Gt": (lambda p, n: (_affinity(p, "Gt", "5"), n.metadata.labels.update(disk="6")), ()),
    "affinity Lt": (
        lambda p, n: (_affinity(p, "Lt", "5"), n.metadata.labels.update(disk="6")),
        (filters.NODE_AFFINITY,),
    ),
    "cpu and memory": (
        lambda p, n: p.spec.containers[0].resources.requests.update(cpu="5", memory="9Gi"),
        ("Insufficient cpu", "Insufficient memory"),
    ),
    "exactly full": (lambda p, n: p.spec.containers[0].resources.requests.update(cpu="4", memory="8Gi"), ()),
    "ephemeral storage": (
        lambda p, n: p.spec.containers[0].resources.requests.update({"ephemeral-storage": "21Gi"}),
        ("Insufficient ephemeral-storage",),
    ),
    "a resource that the node has not": (
        lambda p, n: p.spec.containers[0].resources.requests.update({"example.com/gpu": "1"}),
        ("Insufficient example.com/gpu",),
    ),
    "no pods at all": (lambda p, n: n.status.allocatable.update(pods="0"), (filters.TOO_MANY_PODS,)),
}


def test_a_shape_is_read_again_where_the_spec_or_the_labels_are_others() -> None:
    pod = world.pod("p", cpu="1")
    pod.metadata.generation = 1
    known = read_pod(pod)
    pod.status.phase, pod.spec.nodeName = "Running", "n"
    again = read_pod(pod, known)
    assert again.shape is known.shape
    assert again.node == "n"
    pod.metadata.labels["app"] = "web"
    assert read_pod(pod, known).shape.group == ("labels", "default", "app=web")
    pod.metadata.generation = 2
    pod.spec.containers[0].resources.requests["cpu"] = "2"
    assert read_pod(pod, known).shape.requests.cpu == 2000


@pytest.mark.parametrize(("edit", "expected"), CASES.values(), ids=CASES.keys())
def test_filters(edit: Edit, expected: tuple[str, ...]) -> None:
    pod, node = world.pod("p"), world.node("n")
    edit(pod, node)
    assert filters.reasons(read_shape(pod), read_node(node)) == expected


def _with_port(number: int, address: str = "") -> PodInfo:
    pod = world.pod(f"p{number}{address}")
    port = pod.spec.containers[0].ports.add(containerPort=80, hostPort=number)
    if address:
        port.hostIP = address
    return read_pod(pod)


@pytest.mark.parametrize(
    ("held", "wanted", "free"),
    [
        (_with_port(80), _with_port(80), False),
        (_with_port(80), _with_port(81), True),
        (_with_port(80, "10.0.0.1"), _with_port(80, "10.0.0.2"), True),
        (_with_port(80, "10.0.0.1"), _with_port(80), False),
        (_with_port(80), _with_port(80, "10.0.0.1"), False),
    ],
)
def test_host_ports_conflict_on_overlapping_addresses(held: PodInfo, wanted: PodInfo, free: bool) -> None:
    node = read_node(world.node("n"), [held])
    assert filters.fits(wanted, node) is free
    node.take(held, -1)
    assert filters.fits(wanted, node)


def test_requests_are_the_containers_or_the_largest_init_container() -> None:
    pod = world.pod("p", cpu="300m", memory="100Mi")
    pod.spec.initContainers.add(name="big").resources.requests.update(cpu="1", memory="50Mi")
    pod.spec.initContainers.add(name="small").resources.requests.update(cpu="200m")
    requests = pod_requests(pod.spec)
    assert (requests.cpu, requests.memory) == (1000, 100 * 2**20)


def test_a_sidecar_runs_beside_what_comes_after_it() -> None:
    pod = world.pod("p", cpu="300m")
    pod.spec.initContainers.add(name="side", restartPolicy="Always").resources.requests.update(cpu="100m")
    pod.spec.initContainers.add(name="init").resources.requests.update(cpu="350m")
    assert pod_requests(pod.spec).cpu == 450


def test_the_emptier_node_the_preferred_one_and_the_untainted_one_score_more() -> None:
    shape = read_shape(world.pod("p", cpu="1"))
    empty, used = read_node(world.node("a")), read_node(world.node("b"), [read_pod(world.pod("q", cpu="2"))])
    assert scores.score(shape, empty) > scores.score(shape, used)
    preferring = world.pod("p")
    term = preferring.spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution.add(weight=10)
    term.preference.matchExpressions.add(key="disk", operator="In", values=["ssd"])
    ssd = read_node(world.node("c", disk="ssd"))
    assert scores.score(read_shape(preferring), ssd) > scores.score(read_shape(preferring), empty)
    tainted = world.node("d")
    tainted.spec.taints.add(key="old", effect="PreferNoSchedule")
    assert scores.score(shape, empty) > scores.score(shape, read_node(tainted))


def _diagnosis(shape: Shape, *nodes: NodeInfo) -> str:
    return diagnose(shape, {node.name: node for node in nodes}, {n.name: filters.reasons(shape, n) for n in nodes})


def test_the_message_counts_nodes_per_reason_and_advises_on_the_nearest() -> None:
    pod = world.pod("p", cpu="3")
    pod.spec.nodeSelector["disk"] = "ssd"
    full = read_node(world.node("node-1", disk="ssd"), [read_pod(world.pod("q", cpu="2"))])
    others = [read_node(world.node(name)) for name in ("node-2", "node-3")]
    assert _diagnosis(read_shape(pod), full, *others) == (
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't match Pod's node affinity/selector. "
        "Nearest is node-1: free cpu for 3000m (now 2000m), or request less."
    )


def test_advice_for_labels_taints_and_what_never_fits() -> None:
    pod = world.pod("p")
    pod.spec.nodeSelector["disk"] = "ssd"
    text = _diagnosis(read_shape(pod), read_node(world.node("b")), read_node(world.node("a")))
    assert text.endswith("Nearest is a: label it disk=ssd, or change the pod's nodeSelector.")
    tainted = world.node("a")
    tainted.spec.taints.add(key="team", value="db", effect="NoSchedule")
    text = _diagnosis(read_shape(world.pod("p")), read_node(tainted))
    assert text.endswith("{team: db}. Nearest is a: tolerate or remove its taint team=db:NoSchedule.")
    silent = world.node("a")
    silent.spec.taints.add(key="node.kubernetes.io/unreachable", effect="NoExecute")
    assert _diagnosis(read_shape(world.pod("p")), read_node(silent)).endswith("it has to become Ready.")
    text = _diagnosis(read_shape(world.pod("p", memory="16Gi")), read_node(world.node("a")))
    assert text.endswith("Nearest is a: request less memory than 16384Mi, it is smaller than that.")


def test_without_nodes_there_is_nothing_to_count() -> None:
    assert diagnose(Shape(), {}, {}) == "no nodes available to schedule pods"
