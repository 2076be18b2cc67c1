"""Counters, gauges and histograms, and their text for Prometheus (exposition format 0.0.4).

Owns the numbers of one daemon. Not for several threads: one event loop counts and reads. Names begin with
`podplane_`; a name that is taken is a ValueError. Counting costs a dictionary look-up and never fails.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds for what takes from a millisecond to seconds."""

_NAME = re.compile(r"podplane_[a-z0-9_]+")
Values = tuple[str, ...]
"""Label values, in the order of the metric's labels."""


class Metric(Protocol):
    """Something that can be exposed."""

    @property
    def type(self) -> str: ...

    def samples(self) -> Iterable[tuple[str, str, float]]:
        """(suffix of the name, labels as text, value)."""


class Counter:
    """Counts up from 0, for each combination of label values."""

    type = "counter"

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self._values: dict[Values, float] = {} if labels else {(): 0}

    def add(self, *values: str, by: float = 1) -> None:
        """Count `by` more for these label values."""
        self._values[values] = self._values.get(values, 0) + by

    def samples(self) -> Iterator[tuple[str, str, float]]:
        return (("", _labels(self._labels, values), value) for values, value in sorted(self._values.items()))


class Gauge:
    """A value that goes up and down: read when it is asked for, never kept."""

    type = "gauge"

    def __init__(self, labels: Sequence[str], read: Callable[[], float | Mapping[Values, float]]) -> None:
        self._labels = labels
        self._read = read

    def samples(self) -> Iterator[tuple[str, str, float]]:
        found = self._read()
        values = found if isinstance(found, Mapping) else {(): found}
        return (("", _labels(self._labels, each), value) for each, value in sorted(values.items()))


class Histogram:
    """How often a value was at most each bound, for each combination of label values."""

    type = "histogram"

    def __init__(self, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self._labels = labels
        self._bounds = bounds
        self._counts: dict[Values, list[int]] = {}
        self._sums: dict[Values, float] = {}

    def observe(self, value: float, *values: str) -> None:
        """Count `value` in."""
        counts = self._counts.get(values)
        if counts is None:
            counts = self._counts[values] = [0] * (len(self._bounds) + 1)
            self._sums[values] = 0.0
        counts[bisect_left(self._bounds, value)] += 1
        self._sums[values] += value

    def samples(self) -> Iterator[tuple[str, str, float]]:
        for values, counts in sorted(self._counts.items()):
            total = 0
            for bound, count in zip((*map(_number, self._bounds), "+Inf"), counts, strict=True):
                total += count
                yield "_bucket", _labels((*self._labels, "le"), (*values, bound)), total
            yield "_sum", _labels(self._labels, values), self._sums[values]
            yield "_count", _labels(self._labels, values), total


class Registry:
    """The metrics of a daemon, by name."""

    def __init__(self) -> None:
        self._metrics: dict[str, tuple[str, Metric]] = {}

    def counter(self, name: str, help: str, labels: Sequence[str] = ()) -> Counter:
        """A new counter; its name ends in _total."""
        metric = Counter(labels)
        self._add(name, help, metric)
        return metric

    def gauge(
        self, name: str, help: str, read: Callable[[], float | Mapping[Values, float]], labels: Sequence[str] = ()
    ) -> None:
        """A new gauge: `read` gives the value, or one for each combination of label values."""
        self._add(name, help, Gauge(labels, read))

    def histogram(
        self, name: str, help: str, labels: Sequence[str] = (), bounds: Sequence[float] = SECONDS
    ) -> Histogram:
        """A new histogram; `bounds` rise."""
        metric = Histogram(labels, bounds)
        self._add(name, help, metric)
        return metric

    def _add(self, name: str, help: str, metric: Metric) -> None:
        if not _NAME.fullmatch(name) or name in self._metrics:
            raise ValueError(f"cannot add the metric {name}: the name is taken, or does not begin with podplane_")
        self._metrics[name] = (help, metric)

    def text(self) -> str:
        """All of it, as Prometheus reads it."""
        lines: list[str] = []
        for name, (help, metric) in self._metrics.items():
            lines += [f"# HELP {name} {help}", f"# TYPE {name} {metric.type}"]
            lines += [f"{name}{suffix}{labels} {_number(value)}" for suffix, labels, value in metric.samples()]
        return "\n".join(lines) + "\n"


def _labels(names: Sequence[str], values: Values) -> str:
    if not names:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
