"""Which pod is next, and that a ranking is what scoring every node would give."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.scheduler import filters, scores
from controlplane.scheduler.podinfo import PodInfo, Shape, read_pod
from controlplane.scheduler.queue import Cause, Queue
from controlplane.scheduler.ranking import Rankings
from controlplane.scheduler.snapshot import Snapshot
from tests.controlplane.controllers import world


def waiting(name: str, priority: int = 0, created: float = 0.0) -> PodInfo:
    return PodInfo("default", name, name, Shape(), priority=priority, created=created)


def popped(queue: Queue, now: float) -> list[str]:
    names = []
    while (entry := queue.pop(now)) is not None:
        names.append(entry.pod.name)
    return names


def test_priority_comes_before_age() -> None:
    queue = Queue()
    for pod in (waiting("young", 0, 9), waiting("old", 0, 1), waiting("urgent", 5, 9)):
        queue.set(pod)
    assert popped(queue, 0) == ["urgent", "old", "young"]


def test_a_refused_pod_waits_for_a_change_that_helps_and_for_its_backoff() -> None:
    queue = Queue()
    queue.set(waiting("p"))
    entry = queue.pop(100)
    assert entry is not None
    queue.refused(entry, Cause.ROOM)
    queue.moved(Cause.NODE, 200)
    assert popped(queue, 130) == []
    queue.moved(Cause.ROOM, 100.2)
    assert queue.due() == 101.0
    assert popped(queue, 100.9) == []
    assert popped(queue, 101.0) == ["p"]


def test_a_refused_pod_is_tried_again_after_a_minute_whatever_happened() -> None:
    queue = Queue()
    queue.set(waiting("p"))
    entry = queue.pop(100)
    assert entry is not None
    queue.refused(entry, Cause.ROOM)
    assert queue.due() == 160.0
    assert popped(queue, 159.9) == []
    assert popped(queue, 160.0) == ["p"]


def test_backoff_doubles_to_ten_seconds() -> None:
    queue, now, delays = Queue(), 0.0, []
    queue.set(waiting("p"))
    for _ in range(6):
        entry = queue.pop(now)
        assert entry is not None
        queue.failed(entry)
        due = queue.due()
        assert due is not None
        delays.append(due - now)
        now = due
    assert delays == [1, 2, 4, 8, 10, 10]


def test_a_deleted_pod_comes_out_of_nowhere_and_a_changed_one_at_once() -> None:
    queue = Queue()
    queue.set(waiting("gone"))
    queue.set(waiting("changed"))
    entries = [queue.pop(0), queue.pop(0)]
    for entry in entries:
        assert entry is not None
        queue.refused(entry, Cause.ROOM)
    queue.discard("gone")
    queue.set(replace(waiting("changed"), shape=Shape(scored_cpu=1)))
    assert popped(queue, 0.1) == ["changed"]
    assert popped(queue, 1000) == []


def exhaustive(snapshot: Snapshot, shape: Shape) -> str | None:
    """The best node by judging every one."""

    def total(name: str) -> int:
        node = snapshot.nodes[name]
        crowd = node.groups.get(shape.group, 0) if shape.group else 0
        return scores.score(shape, node) - scores.crowding(crowd)

    fitting = [name for name, node in snapshot.nodes.items() if not filters.reasons(shape, node)]
    return min(fitting, key=lambda name: (-total(name), name), default=None)


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_ranking_is_always_what_judging_every_node_gives(choose: random.Random) -> None:
    snapshot = Snapshot()
    rankings = Rankings(snapshot)
    placed: list[str] = []
    for step in range(120):
        match choose.choice(("place", "place", "place", "node", "drop", "remove")):
            case "node":
                name = f"node-{choose.randrange(12)}"
                node = world.node(name, cpu=str(choose.choice((1, 2, 4))), zone=choose.choice("ab"))
                node.spec.unschedulable = choose.random() < 0.2
                snapshot.set_node(node)
            case "drop":
                snapshot.remove_node(f"node-{choose.randrange(12)}")
            case "remove" if placed:
                snapshot.remove_pod(placed.pop(choose.randrange(len(placed))))
            case _:
                made = world.pod(f"p{step}", cpu=choose.choice(("100m", "700m")), app=choose.choice("xyz"))
                made.metadata.uid = f"u{step}"
                if choose.random() < 0.3:
                    made.spec.nodeSelector["zone"] = "a"
                info = read_pod(made)
                best = rankings.of(info.shape).best()
                assert best == exhaustive(snapshot, info.shape)
                if best is not None:
                    snapshot.assume(info, best)
                    placed.append(info.uid)


def test_an_assumption_outlives_older_events_and_ends_with_forget() -> None:
    snapshot = Snapshot()
    snapshot.set_node(world.node("node-1"))
    pod = read_pod(world.pod("p", cpu="1"))
    snapshot.assume(pod, "node-1")
    snapshot.set_pod(pod)
    assert snapshot.nodes["node-1"].used_cpu == 1000
    snapshot.forget(pod.uid)
    assert snapshot.nodes["node-1"].used_cpu == 0
    snapshot.assume(pod, "node-1")
    snapshot.set_pod(replace(pod, node="node-1"))
    snapshot.forget(pod.uid)
    assert snapshot.nodes["node-1"].used_cpu == 1000, "the bind is durable: a late failure does not undo it"
