"""The three-way merge: what kubectl apply would do, and laws that hold for any objects."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podplane.kinds import KINDS
from podplane.manifest.printing import to_dict
from podplane.manifest.reading import from_tree
from podplane.merge import three_way
from podplane.v1 import apps_pb2, meta_pb2, pod_pb2, service_pb2
from tests.podplane.messages import messages

Tree = dict[str, Any]


def merged(message: type[Any], last: Tree | None, live: Tree, new: Tree) -> Tree:
    read = None if last is None else from_tree(last, message)
    return to_dict(three_way(read, from_tree(live, message), from_tree(new, message)))


@pytest.mark.parametrize(
    ("last", "live", "new", "expected"),
    [
        pytest.param(
            {"replicas": 1}, {"replicas": 5, "paused": True}, {"replicas": 2}, {"replicas": 2, "paused": True}, id="set"
        ),
        pytest.param({"replicas": 1}, {"replicas": 5, "paused": True}, {}, {"paused": True}, id="removed"),
        pytest.param({}, {"replicas": 5}, {}, {"replicas": 5}, id="never-named-stays"),
        pytest.param(None, {"replicas": 5}, {"replicas": 0}, {"replicas": 0}, id="zero-is-a-wish"),
        pytest.param(
            {"selector": {"matchLabels": {"a": "1"}}},
            {"selector": {"matchLabels": {"a": "1", "b": "2"}}},
            {"selector": {"matchLabels": {"c": "3"}}},
            {"selector": {"matchLabels": {"c": "3"}}},
            id="atomic-message",
        ),
        pytest.param(
            {},
            {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}}},
            {"strategy": {"type": "Recreate"}},
            {"strategy": {"type": "Recreate"}},
            id="retain-keys-drops-what-a-change-makes-senseless",
        ),
        pytest.param(
            {"strategy": {"type": "RollingUpdate"}},
            {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}}},
            {"strategy": {"type": "RollingUpdate"}},
            {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}}},
            id="retain-keys-keeps-defaults-without-a-change",
        ),
    ],
)
def test_fields(last: Tree | None, live: Tree, new: Tree, expected: Tree) -> None:
    assert merged(apps_pb2.DeploymentSpec, last, live, new) == expected


@pytest.mark.parametrize(
    ("last", "live", "new", "expected"),
    [
        pytest.param(
            {"ports": [{"port": 80}]},
            {"ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]},
            {"ports": [{"port": 80}]},
            {"ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]},
            id="a-defaulted-key-matches",
        ),
        pytest.param(
            {"ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]},
            {
                "ports": [
                    {"port": 80, "protocol": "TCP"},
                    {"port": 53, "protocol": "UDP"},
                    {"port": 9, "protocol": "TCP"},
                ]
            },
            {"ports": [{"port": 81}, {"port": 53, "protocol": "UDP"}]},
            {"ports": [{"port": 81}, {"port": 53, "protocol": "UDP"}, {"port": 9, "protocol": "TCP"}]},
            id="new-order-first-then-foreign-items",
        ),
        pytest.param(
            {"selector": {"a": "1"}},
            {"selector": {"a": "1"}},
            {"selector": {"b": "2"}},
            {"selector": {"b": "2"}},
            id="atomic-map",
        ),
    ],
)
def test_service_lists(last: Tree, live: Tree, new: Tree, expected: Tree) -> None:
    assert merged(service_pb2.ServiceSpec, last, live, new) == expected


def test_nested_lists_merge_by_name_and_keep_what_the_server_set() -> None:
    last = {
        "containers": [{"name": "a", "image": "x", "env": [{"name": "K", "value": "1"}, {"name": "L", "value": "2"}]}]
    }
    live = {
        "nodeName": "node-1",
        "containers": [{**last["containers"][0], "imagePullPolicy": "Always"}, {"name": "injected", "image": "y"}],
    }
    new = {"containers": [{"name": "a", "image": "z", "env": [{"name": "L", "value": "3"}]}]}
    assert merged(pod_pb2.PodSpec, last, live, new) == {
        "nodeName": "node-1",
        "containers": [
            {"name": "a", "image": "z", "imagePullPolicy": "Always", "env": [{"name": "L", "value": "3"}]},
            {"name": "injected", "image": "y"},
        ],
    }


def test_atomic_lists_and_args_are_replaced_whole() -> None:
    last = {"name": "a", "args": ["1", "2"]}
    assert merged(
        pod_pb2.PodSpec, {"containers": [last]}, {"containers": [last]}, {"containers": [{"name": "a", "args": ["2"]}]}
    ) == {"containers": [{"name": "a", "args": ["2"]}]}


def test_a_volume_changes_its_source() -> None:
    """Also where a person edited the live one, so that `last` does not know the source that goes."""
    live = {"volumes": [{"name": "v", "hostPath": {"path": "/a"}}]}
    new = {"volumes": [{"name": "v", "emptyDir": {}}]}
    assert merged(pod_pb2.PodSpec, None, live, new) == new


def test_items_with_one_key_twice_stay_two_for_validation_to_refuse() -> None:
    new = {"containers": [{"name": "a", "image": "x"}, {"name": "a", "image": "y"}]}
    once = merged(pod_pb2.PodSpec, None, {}, new)
    assert once == new
    assert merged(pod_pb2.PodSpec, new, once, new) == new


def test_sets_keep_foreign_values() -> None:
    live = {"finalizers": ["theirs", "mine"]}
    assert merged(meta_pb2.ObjectMeta, {"finalizers": ["mine"]}, live, {"finalizers": ["new"]}) == {
        "finalizers": ["new", "theirs"]
    }


def test_annotations_of_others_stay() -> None:
    last, live = {"annotations": {"a": "1", "b": "2"}}, {"annotations": {"a": "1", "b": "2", "theirs": "3"}}
    assert merged(meta_pb2.ObjectMeta, last, live, {"annotations": {"a": "4"}}) == {
        "annotations": {"a": "4", "theirs": "3"}
    }


def test_what_the_server_owns_is_never_taken_from_a_manifest() -> None:
    live = pod_pb2.Pod(metadata=meta_pb2.ObjectMeta(name="web", uid="u", resourceVersion="7", generation=2))
    live.metadata.creationTimestamp.FromSeconds(5)
    live.status.phase = "Running"
    new = pod_pb2.Pod(metadata=meta_pb2.ObjectMeta(name="web", uid="x", resourceVersion="1", generation=9))
    new.metadata.deletionTimestamp.FromSeconds(9)
    new.status.phase = "Failed"
    assert three_way(new, live, new) == live
    assert three_way(None, live, new) == live


def test_arguments_are_not_changed() -> None:
    one = from_tree({"containers": [{"name": "a"}]}, pod_pb2.PodSpec)
    two = from_tree({"containers": [{"name": "b"}]}, pod_pb2.PodSpec)
    result = three_way(one, one, two)
    result.containers[0].image = "changed"
    assert (one.containers[0].name, two.containers[0].HasField("image")) == ("a", False)


@pytest.mark.parametrize("name", ["Pod", "Deployment", "Service", "ConfigMap"])
def test_laws(name: str) -> None:
    kind = KINDS[name].message

    @settings(max_examples=60, deadline=None)
    @given(st.none() | messages(kind, 4), messages(kind, 4), messages(kind, 4))
    def hold(last: Any, live: Any, new: Any) -> None:
        once = three_way(last, live, new)
        assert three_way(new, once, new) == once, "applying twice is a no-op"
        assert three_way(None, live, kind()) == live, "a manifest that says nothing changes nothing"
        gone = three_way(new, once, kind())
        assert three_way(kind(), gone, kind()) == gone

    hold()


@settings(max_examples=60, deadline=None)
@given(messages(apps_pb2.Deployment, 4), st.sampled_from(["labels", "annotations"]))
def test_a_removed_key_is_removed(new: Any, field: str) -> None:
    getattr(new.metadata, field)["gone"] = "1"
    live = three_way(None, apps_pb2.Deployment(), new)
    less = apps_pb2.Deployment()
    less.CopyFrom(new)
    del getattr(less.metadata, field)["gone"]
    assert getattr(three_way(new, live, less).metadata, field) == getattr(less.metadata, field)


@settings(max_examples=60, deadline=None)
@given(messages(pod_pb2.Pod, 4))
def test_applying_to_nothing_gives_the_manifest_itself(new: pod_pb2.Pod) -> None:
    result = three_way(None, pod_pb2.Pod(), new)
    assert result.spec == new.spec
