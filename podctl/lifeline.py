"""A pod's life as spans and moments, and their drawing as a waterfall. Pure: all of it from the pod and its events.

A span is a state that lasted (scheduling, a container's run, a back-off); a moment is an event or a condition's change.
The scale ends with the last thing that happened: what goes on until now ends in an arrow. The API's times are whole
seconds: what lies within one second is put in the order in which pods do things, and is said to have taken `<1s`.
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
    """Something that lasted; `end` None where it goes on. Times in Unix seconds."""

    label: str
    start: float
    end: float | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened. `rank` orders what happened within one second."""

    at: float
    name: str
    note: str = ""
    rank: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What bars are drawn with."""

    bar: str = "█"
    tick: str = "▏"
    open: str = "▶"


ASCII = Glyphs("#", "|", ">")
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
        found.append(Span("ready", ready, None))
    if pod.metadata.HasField("deletionTimestamp"):
        asked = seconds_of(pod.metadata.deletionTimestamp) - pod.metadata.deletionGracePeriodSeconds
        found.append(Span("terminating", asked, None, f"grace {pod.metadata.deletionGracePeriodSeconds}s"))
    return sorted(found, key=lambda span: span.start)


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
            note += f" (x{count} over {_length(last - first)})"
        revision = int(event.metadata.resourceVersion or 0)
        found.append(Moment(last, event.reason, note, (_RANKS.get(event.reason, _OTHER), revision)))
    return sorted(found, key=lambda moment: (moment.at, moment.rank))


def _change(condition: Any, note: str) -> Moment:
    name = f"{condition.type}={condition.status}"
    return Moment(seconds_of(condition.lastTransitionTime), name, note, (_RANKS.get(name, _OTHER), 0))


def draw(pod: Any, events: Sequence[Any], width: int, glyphs: Glyphs) -> str:
    """The waterfall and, below it, every moment; lines of at most `width` characters, 60 at least."""
    width = max(width, 60)
    happened, lasted = moments(pod, events), spans(pod)
    start = min(moment.at for moment in happened)
    end = max([moment.at for moment in happened] + [span.end or span.start for span in lasted])
    lines = [_title(pod, start), ""]
    lines += _waterfall(lasted, start, max(end - start, 0.001), width, glyphs)
    lines.append("")
    label = max(len(moment.name) for moment in happened)
    for moment in happened:
        head = f"  {_clock(moment.at)}  {_offset(moment.at - start):>9}  {moment.name:<{label}}  "
        notes = textwrap.wrap(moment.note, max(width - len(head), 20)) or [""]
        lines.append((head + notes[0]).rstrip())
        lines += [" " * len(head) + note for note in notes[1:]]
    return "\n".join(lines)


def _preparations(pod: Any) -> Iterator[Span]:
    created = seconds_of(pod.metadata.creationTimestamp)
    scheduled = _true_since(pod, "PodScheduled")
    yield Span("scheduling", created, scheduled, f"on {pod.spec.nodeName}" if pod.spec.nodeName else "no node yet")
    every = [*pod.status.initContainerStatuses, *pod.status.containerStatuses]
    starts = [begun for status in every for begun in _starts(status)]
    if scheduled:
        yield Span("preparing", scheduled, min(starts, default=None), "sandbox and images")


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
            yield Span(name, seconds_of(status.state.running.startedAt), None, f"running{restarts}")
        elif ended:
            yield Span(name, ended, None, status.state.waiting.reason or "waiting")


def _ended(name: str, state: Any) -> Span:
    finished = seconds_of(state.finishedAt)
    return Span(
        name, seconds_of(state.startedAt) or finished, finished, f"{state.reason or 'ended'}, exit {state.exitCode}"
    )


def _true_since(pod: Any, condition: str) -> float | None:
    for one in pod.status.conditions:
        if one.type == condition and one.status == "True" and one.HasField("lastTransitionTime"):
            return seconds_of(one.lastTransitionTime)
    return None


def _title(pod: Any, start: float) -> str:
    ready = _true_since(pod, "Ready")
    took = f", ready {_length(ready - start)} after it was created" if ready else ""
    where = f" on {pod.spec.nodeName}" if pod.spec.nodeName else ""
    moment = datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"pod {pod.metadata.namespace}/{pod.metadata.name}: {statuses.shown(pod)}{where}{took} ({moment})"


def _waterfall(lasted: Sequence[Span], start: float, total: float, width: int, glyphs: Glyphs) -> list[str]:
    label = max(len(span.label) for span in lasted)
    note = min(max(len(span.note) for span in lasted), width // 4)
    room = max(width - label - note - 16, 10)
    lines = [f"  {'':<{label}}  {'':>9} {'0':<{room - 8}}{_length(total):>8}"]
    for span in lasted:
        left = min(round((span.start - start) / total * room), room - 1)
        right = room if span.end is None else max(round((span.end - start) / total * room), left)
        bar = glyphs.tick if right == left else glyphs.bar * (right - left)
        bar = bar[:-1] + glyphs.open if span.end is None else bar
        lasts = "" if span.end is None else _length(span.end - span.start)
        lines.append(f"  {span.label:<{label}}  {lasts:>9} {' ' * left + bar:<{room}} {span.note[:note]}".rstrip())
    return lines


def _length(seconds: float) -> str:
    """`<1s` (none, in whole seconds), `85ms`, `1.2s`, `3m05s`, `2h10m`."""
    if seconds == 0:
        return "<1s"
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    if seconds < 3600:
        return f"{int(seconds // 60)}m{int(seconds % 60):02}s"
    return f"{int(seconds // 3600)}h{int(seconds % 3600 // 60):02}m"


def _offset(seconds: float) -> str:
    return f"+{_length(seconds)}" if seconds else "+0s"


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S.%f")[:-3].removesuffix(".000")
