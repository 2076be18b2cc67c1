"""Whom a mode has to look at, told or found by comparing."""

from __future__ import annotations

import pytest

from nodeagent.proxy.mode import Last, Ranges, Services, Step, Wanted
from nodeagent.proxy.services import ServicePort

RANGES = Ranges("10.77.1.0/24", "10.77.0.0/16")


def ports(name: str) -> tuple[ServicePort, ...]:
    return (ServicePort(f"default/{name}", "", "tcp", "10.96.0.10", 80, 0, ()),)


A, B, C = (ports(name) for name in "abc")
BEFORE: Services = {"a": A, "b": B, "c": C}
AFTER: Services = {"a": A, "b": ports("b"), "d": ports("d")}


@pytest.mark.parametrize("step", [None, Step(BEFORE, ["b", "c", "d"])])
def test_who_has_changed_and_who_was_refused_is_looked_at(step: Step | None) -> None:
    last = Last()
    wanted = Wanted(RANGES, AFTER, step=step)
    last.note(Wanted(RANGES, BEFORE), [])
    assert sorted(last.changed(wanted, BEFORE)) == ["b", "c", "d"]
    last.note(Wanted(RANGES, BEFORE), ["a"])
    assert list(last.changed(wanted, BEFORE)) == ["a", "b", "c", "d"]
    assert last.told(wanted) == (None if step is None else ["a", "b", "c", "d"])


def test_what_an_earlier_agent_left_is_looked_at_where_all_are_compared() -> None:
    assert sorted(Last().changed(Wanted(RANGES, {"a": A}), ["a", "left"])) == ["a", "left"]


def test_a_step_from_other_services_than_the_last_tells_nothing() -> None:
    last = Last()
    last.note(Wanted(RANGES, BEFORE), [])
    assert last.told(Wanted(RANGES, AFTER, step=Step(dict(BEFORE), ["b"]))) is None
    assert sorted(last.changed(Wanted(RANGES, AFTER, step=Step(dict(BEFORE), ["b"])), BEFORE)) == ["b", "c", "d"]
