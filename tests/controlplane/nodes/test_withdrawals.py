"""Withdrawals as a script: slices, deletions and nodes' reports in, pods that may get SIGTERM out."""

from __future__ import annotations

from controlplane.nodes.withdrawals import Withdrawals
from controlplane.store.stored import Event, EventType, Stored, key_of
from podplane.kinds import ENDPOINT_SLICE, POD
from podplane.v1 import endpointslice_pb2, pod_pb2

NODES = ("node-1", "node-2")


def pod(uid: str, revision: int, node: str = "node-1", *, deleted: bool = True) -> Stored:
    made = pod_pb2.Pod(metadata={"name": uid, "uid": uid}, spec={"nodeName": node})  # type: ignore[arg-type]
    if deleted:
        made.metadata.deletionTimestamp.GetCurrentTime()
    return Stored(POD, key_of(POD, "default", uid), revision, 1, made.SerializeToString())


def change(name: str, revision: int, *, type: EventType = "MODIFIED", **endpoints: bool) -> Event:
    """A slice of the service of that name, in which each pod is terminating (True) or not."""
    labels = {"kubernetes.io/service-name": name}
    made = endpointslice_pb2.EndpointSlice(metadata={"name": name, "labels": labels})  # type: ignore[arg-type]
    for uid, terminating in endpoints.items():
        each = made.endpoints.add(conditions={"terminating": terminating})
        each.targetRef.uid = uid
    stored = Stored(ENDPOINT_SLICE, key_of(ENDPOINT_SLICE, "default", name), revision, 1, made.SerializeToString())
    return Event(type, stored)


def at(revision: int, *slices: Event) -> Withdrawals:
    """Both nodes have programmed `revision`, in which these slices stand."""
    made = Withdrawals()
    for each in slices:
        made.slice_changed(each)
    for node in NODES:
        made.programmed(node, revision)
    return made


def test_a_pod_of_no_service_is_out_at_once() -> None:
    known = at(5, change("web", 4, other=False))
    known.pod_changed(pod("a", 6))
    assert known.due(NODES) == [("node-1", "a")]
    assert known.due(NODES) == []


def test_a_pod_that_is_not_deleted_or_not_bound_is_none_of_it() -> None:
    known = at(5)
    known.pod_changed(pod("a", 6, deleted=False))
    known.pod_changed(pod("b", 6, node=""))
    assert known.due(NODES) == []


def test_an_endpoint_is_out_when_every_node_has_programmed_that_it_terminates() -> None:
    known = at(5, change("web", 4, a=False))
    known.pod_changed(pod("a", 6))
    assert known.due(NODES) == []
    known.slice_changed(change("web", 7, a=True))
    assert known.due(NODES) == []
    known.programmed("node-1", 7)
    assert known.due(NODES) == []
    known.programmed("node-2", 8)
    assert known.due(NODES) == [("node-1", "a")]


def test_every_slice_of_the_pod_counts() -> None:
    known = at(5, change("web", 4, a=False), change("api", 4, a=False))
    known.pod_changed(pod("a", 6))
    known.slice_changed(change("web", 7, a=True))
    for node in NODES:
        known.programmed(node, 9)
    assert known.due(NODES) == []
    known.slice_changed(change("api", 8, type="DELETED"))
    assert known.due(NODES) == [("node-1", "a")]


def test_a_service_that_a_node_cannot_program_holds_up_its_own_pods_only() -> None:
    known = at(5, change("web", 4, a=True), change("api", 4, a=True, b=True))
    known.programmed("node-2", 5, ["default/web"])
    for uid in ("a", "b"):
        known.pod_changed(pod(uid, 6))
    assert known.due(NODES) == [("node-1", "b")]
    assert known.due(["node-1"]) == [("node-1", "a")]  # node-2 is not heard of any more


def test_a_pod_is_out_once_its_service_can_be_programmed_again() -> None:
    known = at(5, change("web", 4, a=True))
    known.pod_changed(pod("a", 6))
    known.programmed("node-2", 9, ["default/web"])
    assert known.due(NODES) == []
    known.programmed("node-2", 9)
    assert known.due(NODES) == [("node-1", "a")]


def test_a_silent_node_holds_nobody_up_and_one_that_never_reported_does() -> None:
    known = at(5, change("web", 4, a=True))
    known.pod_changed(pod("a", 6))
    assert known.due((*NODES, "node-3")) == []
    assert known.due(NODES) == [("node-1", "a")]


def test_a_new_session_is_told_again_until_the_pod_is_gone() -> None:
    known = at(5)
    known.pod_changed(pod("a", 6))
    known.pod_changed(pod("b", 6, node="node-2"))
    assert sorted(known.due(NODES)) == [("node-1", "a"), ("node-2", "b")]
    assert known.of("node-1") == ["a"]
    known.pod_removed("a")
    assert known.of("node-1") == []


def test_a_reload_starts_over() -> None:
    known = at(5, change("web", 4, a=True, b=False))
    known.pod_changed(pod("a", 6))
    assert known.due(NODES) == [("node-1", "a")]
    known.load_slices([change("web", 5, a=False).stored])
    known.load_pods([pod("a", 6), pod("b", 6)])
    assert known.due(NODES) == [("node-1", "b")]
