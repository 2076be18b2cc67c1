"""The arithmetic of rollouts, as scripts and as invariants."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.controllers.rollout import Bounds, Size, bounds, roll, scale
from podplane import intstr
from podplane.v1 import apps_pb2


def deployment(replicas: int, surge: int | str, unavailable: int | str) -> apps_pb2.Deployment:
    made = apps_pb2.Deployment()
    made.spec.replicas = replicas
    made.spec.strategy.rollingUpdate.maxSurge.CopyFrom(intstr.of(surge))
    made.spec.strategy.rollingUpdate.maxUnavailable.CopyFrom(intstr.of(unavailable))
    return made


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (10, "25%", "25%", (3, 2)),
        (1, "25%", "25%", (1, 0)),
        (3, 0, 0, (0, 1)),
        (4, "0%", "10%", (0, 1)),
        (2, 1, 5, (1, 2)),
    ],
)
def test_surge_rounds_up_and_unavailable_down_and_never_both_zero(
    replicas: int, surge: int | str, unavailable: int | str, expected: tuple[int, int]
) -> None:
    limits = bounds(deployment(replicas, surge, unavailable))
    assert (limits.surge, limits.unavailable) == expected


@pytest.mark.parametrize(("unavailable", "expected"), [(2, [5, 3]), (5, [5, 0])])
def test_unhealthy_old_pods_go_first_and_no_more_than_may_be_missing(unavailable: int, expected: list[int]) -> None:
    new, old = Size("new", 3, 0, 3), [Size("a", 5, 5, created=1), Size("b", 4, 0, created=2)]
    roll(Bounds(10, 2, unavailable), new, old)
    assert ([each.replicas for each in old], new.replicas) == (expected, 3)


def test_scaling_during_a_rollout_is_proportional() -> None:
    # Kubernetes' own example: 10 replicas, maxSurge 3, maxUnavailable 2; 8 old and 5 new; scaled to 15.
    old, new = Size("old", 8, 8, 1, 10, 13), Size("new", 5, 0, 2, 10, 13)
    scale(Bounds(15, 3, 2), True, new, [old], 13)
    assert (old.replicas, new.replicas) == (11, 7)


def test_scaling_a_complete_deployment_touches_the_newest_set_only() -> None:
    old, new = Size("old", 0, 0, 1, 3, 4), Size("new", 3, 3, 2, 3, 4)
    scale(Bounds(7, 2, 1), True, new, [old], 3)
    assert (old.replicas, new.replicas) == (0, 7)


def test_scaling_to_zero_leaves_nothing() -> None:
    old, new = Size("old", 8, 8, 1, 10, 13), Size("new", 5, 0, 2, 10, 13)
    scale(Bounds(0, 0, 0), True, new, [old], 13)
    assert (old.replicas, new.replicas) == (0, 0)


class Pods:
    """A replica set's pods, and the status that its controller last wrote, which may be of before."""

    def __init__(self, name: str, replicas: int, available: int, created: int) -> None:
        self.size = Size(name, replicas, available, created)
        self.pods = [True] * available + [False] * (replicas - available)
        self.reported = available

    @property
    def available(self) -> int:
        return sum(self.pods)

    def follow(self) -> None:
        """The replica set controller: surplus pods go, those that are not available first."""
        self.pods.sort(reverse=True)
        del self.pods[self.size.replicas :]
        self.pods += [False] * (self.size.replicas - len(self.pods))

    def report(self) -> None:
        self.reported = self.available


@settings(max_examples=80, deadline=None)
@given(
    replicas=st.integers(1, 12),
    surge=st.integers(0, 6),
    unavailable=st.integers(0, 6),
    olds=st.lists(st.integers(0, 12), min_size=1, max_size=3),
    choose=st.randoms(use_true_random=False),
)
def test_a_rolling_update_keeps_its_bounds_with_late_statuses_and_gets_there(
    replicas: int, surge: int, unavailable: int, olds: list[int], choose: random.Random
) -> None:
    limits = bounds(deployment(replicas, surge, unavailable))
    sets = [Pods("new", 0, 0, 9)]
    left = replicas
    for index, count in enumerate(olds):
        count = min(left, count) if index < len(olds) - 1 else left
        sets.append(Pods(f"old-{index}", count, count, index))
        left -= count
    for step in range(700):
        match choose.choice(("plan", "follow", "report", "ready")) if step < 500 else "all":
            case "plan":
                _plan(limits, sets)
            case "follow":
                choose.choice(sets).follow()
            case "report":
                choose.choice(sets).report()
            case "ready":
                _make_one_ready(sets, choose)
            case _:
                for each in sets:
                    each.follow()
                    each.pods = [True] * len(each.pods)
                    each.report()
                _plan(limits, sets)
        # What is asked for, and what stays available once every set has followed: neither may break a bound.
        assert sum(each.size.replicas for each in sets) <= limits.replicas + limits.surge
        assert sum(min(each.available, each.size.replicas) for each in sets) >= limits.least
        assert sum(len(each.pods) for each in sets[:1]) <= limits.replicas
    assert [each.size.replicas for each in sets] == [replicas] + [0] * len(olds)


def _plan(limits: Bounds, sets: list[Pods]) -> None:
    for each in sets:
        each.size.available = min(each.reported, each.size.replicas)
    roll(limits, sets[0].size, [each.size for each in sets[1:]])


def _make_one_ready(sets: list[Pods], choose: random.Random) -> None:
    waiting = [(each, index) for each in sets for index, up in enumerate(each.pods) if not up]
    if waiting:
        each, index = choose.choice(waiting)
        each.pods[index] = True
