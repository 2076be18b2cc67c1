"""The waterfall of a pod: what lasted, what happened, and lines that fit."""

from __future__ import annotations

from typing import Any

import pytest

from podctl.lifeline import (
    ASCII,
    CONTAINER,
    CONTROL,
    FAILED,
    POD,
    READY,
    RUN,
    Span,
    draw,
    length,
    moments,
    panels,
    spans,
)
from tests.podctl import objects


def _at(seconds: float) -> float:
    return objects.NOW - 300 + seconds  # the pod was created 300 s before NOW


def _measured() -> Any:
    """The same pod, from a node that said where the start went."""
    pod = objects.of(objects.POD)
    steps = ("sandbox", 0, 5_300), ("volumes", 0, 800), ("pull prepare", 0, 250_000), ("start app", 3_000_000, 10_000)
    for name, after, took in steps:
        step, _, container = name.partition(" ")
        pod.status.startSteps.add(step=step, container=container, afterMicroseconds=after, tookMicroseconds=took)
    return pod


def test_spans_tell_runs_back_offs_and_readiness() -> None:
    assert spans(objects.of(objects.POD)) == [
        Span("scheduling", _at(0), _at(1), "on node-1", CONTROL),
        Span("binding", _at(1), _at(1), kind=CONTROL),
        Span("preparing", _at(1), _at(2), "sandbox and images", POD),
        Span("init prepare", _at(2), _at(4), "Completed, exit 0", RUN),
        Span("app", _at(4), _at(290), "Error, exit 1", FAILED),
        Span("app", _at(291), None, "running, 3 restarts", RUN),
        Span("ready", _at(292), None, kind=READY),
    ]


def test_steps_that_the_node_measured_are_spans_of_their_own() -> None:
    assert [(span.label, span.kind, span.start - _at(1), span.end) for span in spans(_measured())[2:6]] == [
        ("sandbox", POD, 0, pytest.approx(_at(1.0053), abs=1e-5)),
        ("volumes", POD, 0, pytest.approx(_at(1.0008), abs=1e-5)),
        ("pull prepare", CONTAINER, 0, pytest.approx(_at(1.25), abs=1e-5)),
        ("init prepare", RUN, 1, _at(4)),
    ]


def test_a_start_that_is_short_beside_the_life_has_a_scale_of_its_own() -> None:
    start, life = panels(_measured(), [])
    assert (start.start, life.start, life.end) == (_at(0), _at(0), _at(292))
    assert start.end == pytest.approx(_at(4.01), abs=1e-5)
    assert [span.label for span in start.spans] == [
        *("scheduling", "binding", "sandbox", "volumes", "pull prepare", "init prepare", "start app", "app"),
    ]
    assert [span.label for span in life.spans] == ["start", "app", "app", "ready"]
    assert "ready 4.0s after it was created" in draw(_measured(), [], 100, ASCII)


@pytest.mark.parametrize("step", ["start app", "probes app"])
def test_a_start_that_goes_on_has_no_scale_of_its_own(step: str) -> None:
    pod = _measured()
    name, _, container = step.partition(" ")
    del pod.status.startSteps[3:]
    pod.status.startSteps.add(step=name, container=container, afterMicroseconds=3_000_000)
    (life,) = panels(pod, [])
    assert Span(step, _at(4), None, kind=CONTAINER) in life.spans


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0ms"), (0.0003, "0.3ms"), (0.0096, "10ms"), (0.085, "85ms"), (0.9996, "1.0s"), (185, "3m05s"),
     (7800, "2h10m")],
)  # fmt: skip
def test_lengths_are_given_as_exactly_as_matters(seconds: float, words: str) -> None:
    assert length(seconds) == words


def test_moments_are_in_order_and_count_repeated_events() -> None:
    found = moments(objects.of(objects.POD), [objects.of(objects.EVENT)])
    assert [moment.at for moment in found] == sorted(moment.at for moment in found)
    assert found[0].name == "Created"
    assert found[-1].name == "BackOff"
    assert found[-1].note.endswith("(x7 over 9m55s)")


def test_drawing_fits_the_terminal_and_names_everything() -> None:
    text = draw(objects.of(objects.POD), [objects.of(objects.EVENT)], 100, ASCII)
    assert max(map(len, text.splitlines())) <= 100
    for word in ("pod default/web: Running on node-1", "scheduling", "init prepare", "BackOff", ">"):
        assert word in text


def test_drawing_gives_every_step_its_row_and_its_time() -> None:
    rows = draw(_measured(), [], 100, ASCII).splitlines()
    for label, lasts in (("sandbox", "5.3ms"), ("volumes", "0.8ms"), ("pull prepare", "250ms"), ("start app", "10ms")):
        assert [row for row in rows if row.startswith(f"  {label} ") and f" {lasts} " in row], label


def test_pod_that_nobody_scheduled_has_a_timeline() -> None:
    pod = objects.of(
        "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: default,"
        ' creationTimestamp: "2023-11-14T22:08:20Z"}, status: {phase: Pending}}'
    )
    assert spans(pod) == [Span("scheduling", _at(0), None, "no node yet", CONTROL)]
    assert "Pending" in draw(pod, [], 80, ASCII)


def test_what_happened_at_one_time_is_in_the_order_of_a_start() -> None:
    pod = objects.of(objects.POD)
    for condition in pod.status.conditions:
        condition.lastTransitionTime.CopyFrom(pod.metadata.creationTimestamp)
    pod.status.startTime.CopyFrom(pod.metadata.creationTimestamp)
    started, scheduled = objects.of(objects.EVENT), objects.of(objects.EVENT)
    for event, reason, revision in ((started, "Started", "9"), (scheduled, "Scheduled", "5")):
        event.reason, event.count, event.metadata.resourceVersion = reason, 1, revision
        event.firstTimestamp.CopyFrom(pod.metadata.creationTimestamp)
        event.lastTimestamp.CopyFrom(pod.metadata.creationTimestamp)
    assert [moment.name for moment in moments(pod, [started, scheduled])] == [
        "Created",
        "PodScheduled=True",
        "Scheduled",
        "Accepted",
        "Started",
        "Initialized=True",
        "Ready=True",
    ]
