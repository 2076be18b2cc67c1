"""The waterfall of a pod: what lasted, what happened, and lines that fit."""

from __future__ import annotations

from podctl.lifeline import ASCII, Span, draw, moments, spans
from tests.podctl import objects


def _at(seconds: int) -> float:
    return objects.NOW - 300 + seconds  # the pod was created 300 s before NOW


def test_spans_tell_runs_back_offs_and_readiness() -> None:
    assert spans(objects.of(objects.POD)) == [
        Span("scheduling", _at(0), _at(1), "on node-1"),
        Span("preparing", _at(1), _at(2), "sandbox and images"),
        Span("init prepare", _at(2), _at(4), "Completed, exit 0"),
        Span("app", _at(4), _at(290), "Error, exit 1"),
        Span("app", _at(291), None, "running, 3 restarts"),
        Span("ready", _at(292), None),
    ]


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


def test_pod_that_nobody_scheduled_has_a_timeline() -> None:
    pod = objects.of(
        "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: default,"
        ' creationTimestamp: "2023-11-14T22:08:20Z"}, status: {phase: Pending}}'
    )
    assert spans(pod) == [Span("scheduling", _at(0), None, "no node yet")]
    assert "Pending" in draw(pod, [], 80, ASCII)


def test_what_happened_within_a_second_is_in_the_order_of_a_start() -> None:
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
    assert "ready <1s after it was created" in draw(pod, [], 100, ASCII)
