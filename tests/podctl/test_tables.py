"""Rows as kubectl prints them, kind by kind."""

from __future__ import annotations

import pytest

from podctl.tables import TABLES, table_of
from podctl.tabwriter import Columns
from podplane.kinds import KINDS
from tests.podctl import objects


def test_every_kind_has_a_table_whose_cells_match_its_titles() -> None:
    assert set(TABLES) == set(KINDS)
    for kind in KINDS.values():
        empty = kind.message()
        assert len(table_of(kind.name).cells(empty, 0.0)) == len(table_of(kind.name).titles)


@pytest.mark.parametrize(
    ("manifest", "wide", "expected"),
    [
        (objects.POD, False, ["web", "1/1", "Running", "3 (10s ago)", "5m"]),
        (
            objects.POD,
            True,
            ["web", "1/1", "Running", "3 (10s ago)", "5m", "10.244.1.5", "node-1", "<none>", "<none>"],
        ),
        (objects.NODE, False, ["node-1", "Ready,SchedulingDisabled", "control,edge", "120m", "v0.1.0"]),
        (objects.DEPLOYMENT, False, ["web", "2/3", "3", "2", "5m"]),
        (objects.DEPLOYMENT, True, ["web", "2/3", "3", "2", "5m", "app,log", "web:1,log:2", "app=web"]),
        (objects.REPLICA_SET, True, ["web-abc", "3", "3", "2", "5m", "app", "web:1", "app in (api,web),!old"]),
        (
            objects.SERVICE,
            True,
            ["web", "NodePort", "10.96.0.10", "<none>", "80:30080/TCP,53/UDP", "5m", "app=web"],
        ),
        (
            objects.SLICE,
            False,
            ["web-x", "IPv4", "8080", "10.244.1.5,10.244.1.6,10.244.1.7 + 1 more...", "5m"],
        ),
        (
            objects.EVENT,
            False,
            ["5s", "Warning", "BackOff", "pod/web", "back-off 20s restarting failed container"],
        ),
    ],
)
def test_row_is_what_kubectl_prints(manifest: str, wide: bool, expected: list[str]) -> None:
    obj = objects.of(manifest)
    assert table_of(obj.kind).row(obj, objects.NOW, wide) == expected


def test_columns_are_three_spaces_apart_and_never_shrink() -> None:
    columns = Columns()
    first = columns.lines([["NAME", "READY", "AGE"], ["a-long-name", "1/1", "5s"]])
    assert first == ["NAME          READY   AGE", "a-long-name   1/1     5s"]
    assert columns.lines([["b", "0/1", "1s"]]) == ["b             0/1     1s"]


def test_service_without_anything_shows_none() -> None:
    obj = objects.of("{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {type: LoadBalancer}}")
    assert table_of("Service").row(obj, 0.0, False)[:5] == ["s", "LoadBalancer", "<none>", "<pending>", "<none>"]


def test_node_without_conditions_is_unknown() -> None:
    obj = objects.of("{apiVersion: v1, kind: Node, metadata: {name: one}}")
    assert table_of("Node").row(obj, 0.0, False)[1:3] == ["Unknown", "<none>"]
