"""Patches as the RFCs and Kubernetes define them."""

from __future__ import annotations

from typing import Any

import pytest

from podctl.patching import PatchError, json_patch, merge, strategic
from podplane.v1 import apps_pb2, pod_pb2, service_pb2

_POD: dict[str, Any] = {
    "metadata": {"labels": {"a": "1", "b": "2"}, "finalizers": ["x"]},
    "spec": {"containers": [{"name": "app", "image": "web:1", "args": ["a", "b"]}, {"name": "log", "image": "log:1"}]},
}


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({"a": 1}, {"a": 1, "b": {"c": 2, "d": 3}}),
        ({"b": {"c": None}}, {"a": 0, "b": {"d": 3}}),
        ({"a": None, "b": [1]}, {"b": [1]}),
        ({"n": {"x": None, "y": 1}}, {"a": 0, "b": {"c": 2, "d": 3}, "n": {"y": 1}}),
    ],
)
def test_merge_patch_follows_rfc_7386(patch: Any, expected: Any) -> None:
    assert merge({"a": 0, "b": {"c": 2, "d": 3}}, patch) == expected


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ([{"op": "add", "path": "/l/1", "value": 9}], {"l": [1, 9, 2], "m": {"a/b": 1}}),
        ([{"op": "add", "path": "/l/-", "value": 9}], {"l": [1, 2, 9], "m": {"a/b": 1}}),
        ([{"op": "remove", "path": "/m/a~1b"}], {"l": [1, 2], "m": {}}),
        ([{"op": "replace", "path": "/l/0", "value": 5}], {"l": [5, 2], "m": {"a/b": 1}}),
        ([{"op": "move", "from": "/m", "path": "/n"}], {"l": [1, 2], "n": {"a/b": 1}}),
        ([{"op": "copy", "from": "/l/0", "path": "/k"}], {"l": [1, 2], "k": 1, "m": {"a/b": 1}}),
        ([{"op": "test", "path": "/l/0", "value": 1}], {"l": [1, 2], "m": {"a/b": 1}}),
    ],
)
def test_json_patch_follows_rfc_6902(operations: Any, expected: Any) -> None:
    assert json_patch({"l": [1, 2], "m": {"a/b": 1}}, operations) == expected


@pytest.mark.parametrize(
    "operations",
    [
        {"op": "add"},
        [{"op": "sing", "path": "/l"}],
        [{"op": "add", "path": "/l"}],
        [{"op": "remove", "path": "/none"}],
        [{"op": "replace", "path": "/l/7", "value": 1}],
        [{"op": "test", "path": "/l/0", "value": 2}],
        [{"op": "add", "path": "l", "value": 2}],
    ],
)
def test_json_patch_that_does_not_fit_changes_nothing(operations: Any) -> None:
    tree = {"l": [1, 2]}
    with pytest.raises(PatchError):
        json_patch(tree, operations)
    assert tree == {"l": [1, 2]}


def test_strategic_merge_patches_containers_by_name() -> None:
    patch = {"spec": {"containers": [{"name": "log", "image": "log:2"}, {"name": "new", "image": "n:1"}]}}
    found = strategic(_POD, patch, pod_pb2.Pod.DESCRIPTOR)["spec"]["containers"]
    assert [(one["name"], one["image"]) for one in found] == [("app", "web:1"), ("log", "log:2"), ("new", "n:1")]
    assert found[0]["args"] == ["a", "b"]


def test_strategic_merge_replaces_plain_lists_and_merges_sets_and_maps() -> None:
    patch = {
        "metadata": {"labels": {"a": None, "c": "3"}, "finalizers": ["y"]},
        "spec": {"containers": [{"name": "app", "args": ["c"]}]},
    }
    found = strategic(_POD, patch, pod_pb2.Pod.DESCRIPTOR)
    assert found["metadata"] == {"labels": {"b": "2", "c": "3"}, "finalizers": ["x", "y"]}
    assert found["spec"]["containers"][0]["args"] == ["c"]


def test_strategic_merge_obeys_its_directives() -> None:
    deleted = {"spec": {"containers": [{"name": "log", "$patch": "delete"}]}}
    assert [one["name"] for one in strategic(_POD, deleted, pod_pb2.Pod.DESCRIPTOR)["spec"]["containers"]] == ["app"]
    replaced = {"spec": {"containers": [{"$patch": "replace"}, {"name": "only"}]}}
    assert strategic(_POD, replaced, pod_pb2.Pod.DESCRIPTOR)["spec"]["containers"] == [{"name": "only"}]
    taken = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}}
    assert strategic(_POD, taken, pod_pb2.Pod.DESCRIPTOR)["metadata"]["finalizers"] == []
    deployment = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    recreate = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    found = strategic(deployment, recreate, apps_pb2.Deployment.DESCRIPTOR)
    assert found["spec"]["strategy"] == {"type": "Recreate"}


def test_port_without_protocol_means_tcp() -> None:
    service = {"spec": {"ports": [{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}
    found = strategic(service, {"spec": {"ports": [{"port": 53, "name": "dns"}]}}, service_pb2.Service.DESCRIPTOR)
    assert found["spec"]["ports"] == [{"port": 53, "protocol": "TCP", "name": "dns"}, {"port": 53, "protocol": "UDP"}]


@pytest.mark.parametrize(
    "patch", [{"$patch": "sing"}, {"$setElementOrder/x": []}, {"spec": {"containers": [{"image": "x"}]}}]
)
def test_strategic_merge_refuses_what_it_does_not_know(patch: Any) -> None:
    with pytest.raises(PatchError):
        strategic(_POD, patch, pod_pb2.Pod.DESCRIPTOR)
