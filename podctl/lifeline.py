"""A pod's life as spans and moments, and their drawing as a waterfall. Pure: all of it from the pod and its events.

A span is a state that lasted (scheduling, a step of the start, a container's run, a back-off); a moment is an event or
a condition's change. The scale ends with the last thing that happened: what goes on until now ends in an arrow. A start
that is short beside the life that followed has a scale of its own. What has one and the same time is put in the order
in which pods do things. Control plane and node each go by their own clock.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from podctl.durations import seconds_of
from podctl.tables import event_times
from podplane import statuses


@dataclass(frozen=True, slots=True)
class Span:
    """Something that lasted; `end` None where it goes on. Times in Unix seconds. `kind`: CONTROL ... FAILED."""

    label: str
    start: float
    end: float | None
    note: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened. `rank` orders what happened at the same time."""

    at: float
    name: str
    note: str = ""
    rank: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Panel:
    """Spans on one scale, from `start` to `end`."""

    start: float
    end: float
    spans: Sequence[Span]


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What bars are drawn with."""

    bar: str = "█"
    tick: str = "▏"
    open: str = "▶"


ASCII = Glyphs("#", "|", ">")

CONTROL, POD, CONTAINER, RUN, READY, FAILED = "control", "pod", "container", "run", "ready", "failed"

_LONGER = 4
"""By how many times a life is longer than its start for the start to have a scale of its own."""
_SAME = 1e-5
"""Seconds: times that differ by less do so by rounding."""
_RANKS = {
    "PodScheduled=True": 1,
    "Scheduled": 2,
    "Accepted": 3,
    "PodReadyToStartContainers=True": 4,
    "Initialized=True": 6,
    "ContainersReady=True": 7,
    "Ready=True": 8,
}
_OTHER = 5


def spans(pod: Any) -> list[Span]:
    """What lasted, in the order of its beginning."""
    found = [*_preparations(pod), *_runs(pod.status.initContainerStatuses, "init ")]
    found += _runs(pod.status.containerStatuses, "")
    ready = _true_since(pod, "Ready")
    if ready:
        found.append(Span("ready", ready, None, kind=READY))
    if pod.metadata.HasField("deletionTimestamp"):
        asked = seconds_of(pod.metadata.deletionTimestamp) - pod.metadata.deletionGracePeriodSeconds
        found.append(Span("terminating", asked, None, f"grace {pod.metadata.deletionGracePeriodSeconds}s", CONTROL))
    return sorted(found, key=lambda span: span.start)


def panels(pod: Any, events: Sequence[Any]) -> list[Panel]:
    """The whole life on one scale; before it its start, where that would be too short to be seen there."""
    lasted, happened = spans(pod), moments(pod, events)
    start = happened[0].at
    end = max([moment.at for moment in happened] + [span.end or span.start for span in lasted])
    begun = _begun(pod)
    if begun is None or end - start < _LONGER * (begun - start):
        return [Panel(start, end, lasted)]
    rest = [span for span in lasted if span.end is None or span.end > begun + _SAME]
    return [
        Panel(start, begun, [span for span in lasted if span.start < begun - _SAME]),
        Panel(start, end, [Span("start", start, begun, kind=POD), *rest]),
    ]


def _begun(pod: Any) -> float | None:
    """When the pod's start was over; None while it is not, or where the node did not say where it went."""
    ends = {span.label: span.end for span in _steps(pod)}
    if any(f"start {container.name}" not in ends for container in pod.spec.containers):
        return None
    known = [end for end in ends.values() if end is not None]
    return max(known) if known and len(known) == len(ends) else None


def moments(pod: Any, events: Sequence[Any]) -> list[Moment]:
    """Events and changes of conditions, in the order of time; a repeated event counts where it was last seen."""
    found = [Moment(seconds_of(pod.metadata.creationTimestamp), "Created", "the pod was accepted")]
    if pod.status.HasField("startTime"):
        found.append(Moment(seconds_of(pod.status.startTime), "Accepted", f"by {pod.spec.nodeName}", (3, 0)))
    for one in pod.status.conditions:
        if one.HasField("lastTransitionTime"):
            note = ": ".join(part for part in (one.reason, one.message) if part)
            found.append(_change(one, note))
    for event in events:
        first, last, count = event_times(event)
        note = event.message.strip().replace("\n", " ")
        if count > 1:
            note += f" (x{count} over {length(last - first)})"
        revision = int(event.metadata.resourceVersion or 0)
        found.append(Moment(last, event.reason, note, (_RANKS.get(event.reason, _OTHER), revision)))
    return sorted(found, key=lambda moment: (moment.at, moment.rank))


def _change(condition: Any, note: str) -> Moment:
    name = f"{condition.type}={condition.status}"
    return Moment(seconds_of(condition.lastTransitionTime), name, note, (_RANKS.get(name, _OTHER), 0))


def draw(pod: Any, events: Sequence[Any], width: int, glyphs: Glyphs) -> str:
    """The waterfall and, below it, every moment; lines of at most `width` characters, 60 at least."""
    width = max(width, 60)
    happened = moments(pod, events)
    start = happened[0].at
    lines = [title(pod), ""]
    for panel in panels(pod, events):
        lines += [*_waterfall(panel, width, glyphs), ""]
    label = max(len(moment.name) for moment in happened)
    for moment in happened:
        head = f"  {_clock(moment.at)}  {_offset(moment.at - start):>9}  {moment.name:<{label}}  "
        notes = textwrap.wrap(moment.note, max(width - len(head), 20)) or [""]
        lines.append((head + notes[0]).rstrip())
        lines += [" " * len(head) + note for note in notes[1:]]
    return "\n".join(lines)


def _preparations(pod: Any) -> Iterator[Span]:
    created = seconds_of(pod.metadata.creationTimestamp)
    scheduled, accepted = _true_since(pod, "PodScheduled"), seconds_of(pod.status.startTime)
    note = f"on {pod.spec.nodeName}" if pod.spec.nodeName else "no node yet"
    yield Span("scheduling", created, scheduled, note, CONTROL)
    if not scheduled:
        return
    if not accepted:
        yield Span("binding", scheduled, None, "the node has not taken it yet", CONTROL)
        return
    accepted = max(accepted, scheduled)
    yield Span("binding", scheduled, accepted, kind=CONTROL)
    if pod.status.startSteps:
        yield from _steps(pod)
    else:
        every = [*pod.status.initContainerStatuses, *pod.status.containerStatuses]
        starts = [begun for status in every for begun in _starts(status)]
        yield Span("preparing", accepted, min(starts, default=None), "sandbox and images", POD)


def _steps(pod: Any) -> Iterator[Span]:
    """What the node measured."""
    for one in pod.status.startSteps:
        begun = seconds_of(pod.status.startTime) + one.afterMicroseconds / 1e6
        ended = begun + one.tookMicroseconds / 1e6 if one.HasField("tookMicroseconds") else None
        yield Span(f"{one.step} {one.container}".rstrip(), begun, ended, kind=CONTAINER if one.container else POD)


def _starts(status: Any) -> Iterator[float]:
    for state in (status.lastState, status.state):
        for field in ("running", "terminated"):
            if state.HasField(field) and (begun := seconds_of(getattr(state, field).startedAt)):
                yield begun


def _runs(found: Sequence[Any], prefix: str) -> Iterator[Span]:
    """The runs of each container that its status still knows: the one before, and this one or the wait for it."""
    for status in found:
        name = f"{prefix}{status.name}"
        before = status.lastState
        ended = 0.0
        if before.HasField("terminated"):
            ended = seconds_of(before.terminated.finishedAt)
            yield _ended(name, before.terminated)
        if status.state.HasField("terminated"):
            yield _ended(name, status.state.terminated)
        elif status.state.HasField("running"):
            restarts = f", {status.restartCount} restarts" if status.restartCount else ""
            yield Span(name, seconds_of(status.state.running.startedAt), None, f"running{restarts}", RUN)
        elif ended:
            yield Span(name, ended, None, status.state.waiting.reason or "waiting", FAILED)


def _ended(name: str, state: Any) -> Span:
    finished = seconds_of(state.finishedAt)
    note = f"{state.reason or 'ended'}, exit {state.exitCode}"
    return Span(name, seconds_of(state.startedAt) or finished, finished, note, FAILED if state.exitCode else RUN)


def _true_since(pod: Any, condition: str) -> float | None:
    for one in pod.status.conditions:
        if one.type == condition and one.status == "True" and one.HasField("lastTransitionTime"):
            return seconds_of(one.lastTransitionTime)
    return None


def title(pod: Any) -> str:
    """Which pod it is, how it is, and how long it took until it was ready."""
    start = seconds_of(pod.metadata.creationTimestamp)
    ready = _begun(pod) or _true_since(pod, "Ready")
    took = f", ready {length(ready - start)} after it was created" if ready else ""
    where = f" on {pod.spec.nodeName}" if pod.spec.nodeName else ""
    moment = datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"pod {pod.metadata.namespace}/{pod.metadata.name}: {statuses.shown(pod)}{where}{took} ({moment})"


def _waterfall(panel: Panel, width: int, glyphs: Glyphs) -> list[str]:
    start, total = panel.start, max(panel.end - panel.start, 0.001)
    label = max(len(span.label) for span in panel.spans)
    note = min(max(len(span.note) for span in panel.spans), width // 4)
    room = max(width - label - note - 16, 10)
    lines = [f"  {'':<{label}}  {'':>9} {'0':<{room - 8}}{length(total):>8}"]
    for span in panel.spans:
        left = max(min(round((span.start - start) / total * room), room - 1), 0)
        goes_on = span.end is None or span.end > panel.end
        right = room if goes_on else max(round(((span.end or 0.0) - start) / total * room), left)
        bar = glyphs.tick if right == left else glyphs.bar * (right - left)
        bar = bar[:-1] + glyphs.open if goes_on else bar
        lasts = "" if span.end is None else length(span.end - span.start)
        lines.append(f"  {span.label:<{label}}  {lasts:>9} {' ' * left + bar:<{room}} {span.note[:note]}".rstrip())
    return lines


def length(seconds: float) -> str:
    """`0.4ms`, `85ms`, `1.2s`, `3m05s`, `2h10m`."""
    if round(seconds, 3) < 0.01:
        return f"{max(seconds, 0.0) * 1000:.1f}ms"
    if round(seconds, 3) < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    if seconds < 3600:
        return f"{int(seconds // 60)}m{int(seconds % 60):02}s"
    return f"{int(seconds // 3600)}h{int(seconds % 3600 // 60):02}m"


def _offset(seconds: float) -> str:
    return f"+{length(seconds)}" if seconds else "+0s"


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S.%f")[:-3].removesuffix(".000")
