"""The tables of podctl top."""

from __future__ import annotations

from podctl.usage import PodTable, node_rows
from podplane.v1 import metrics_pb2, node_pb2


def metrics(name: str, namespace: str = "default", **containers: tuple[str, str]) -> metrics_pb2.PodMetrics:
    made = metrics_pb2.PodMetrics()
    made.metadata.name, made.metadata.namespace = name, namespace
    for container, (cpu, memory) in containers.items():
        made.containers.add(name=container, usage={"cpu": cpu, "memory": memory})
    return made


PODS = [
    metrics("web", side=("1200000n", "2Mi"), app=("250000001n", "40960Ki")),
    metrics("api", "other", app=("0", "300Mi")),
]


def test_a_pod_is_the_sum_of_its_containers_in_order_of_name() -> None:
    table = PodTable()
    assert table.header == ["NAME", "CPU(cores)", "MEMORY(bytes)"]
    assert table.rows(PODS) == [["web", "253m", "42Mi"], ["api", "0m", "300Mi"]]


def test_sorting_puts_the_greatest_first_and_a_sum_comes_last() -> None:
    assert [row[0] for row in PodTable(sort_by="memory").rows(PODS)] == ["api", "web"]
    assert [row[0] for row in PodTable(sort_by="cpu").rows(PODS)] == ["web", "api"]
    table = PodTable(namespaces=True, total=True)
    assert table.header == ["NAMESPACE", "NAME", "CPU(cores)", "MEMORY(bytes)"]
    assert table.rows(PODS)[-2:] == [["", "", "________", "________"], ["", "", "253m", "342Mi"]]


def test_containers_have_a_line_each() -> None:
    table = PodTable(containers=True)
    assert table.header == ["POD", "NAME", "CPU(cores)", "MEMORY(bytes)"]
    assert table.rows(PODS) == [
        ["web", "app", "251m", "40Mi"],
        ["web", "side", "2m", "2Mi"],
        ["api", "app", "0m", "300Mi"],
    ]


def test_nodes_show_shares_of_what_is_allocatable_and_silent_ones_are_unknown() -> None:
    nodes = []
    for name in ("b", "a", "silent"):
        node = node_pb2.Node()
        node.metadata.name = name
        node.status.capacity.update({"cpu": "4", "memory": "8Gi"})
        node.status.allocatable.update({"cpu": "2", "memory": "4Gi"})
        nodes.append(node)
    found = []
    for name, cpu in (("a", "500m"), ("b", "1500m")):
        made = metrics_pb2.NodeMetrics(usage={"cpu": cpu, "memory": "1Gi"})
        made.metadata.name = name
        found.append(made)
    silent = ["silent", *["<unknown>"] * 4]
    assert node_rows(nodes, found, "", capacity=False) == [
        ["a", "500m", "25%", "1024Mi", "25%"],
        ["b", "1500m", "75%", "1024Mi", "25%"],
        silent,
    ]
    assert node_rows(nodes, found, "cpu", capacity=True) == [
        ["b", "1500m", "37%", "1024Mi", "12%"],
        ["a", "500m", "12%", "1024Mi", "12%"],
        silent,
    ]
