"""What a bench found: rows of a claim, a table for people, JSON for machines.

A row without a peer's figure says in `peer_name` why: SKIPPED and the package to install.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True, slots=True)
class Row:
    """One claim. `goal` bounds `ours` from above, or from below where more is better."""

    claim: str
    unit: str
    ours: float | None
    peer: float | None
    peer_name: str
    goal: float | None
    more_is_better: bool
    command: str

    @property
    def ratio(self) -> float | None:
        """ours / peer."""
        return None if self.ours is None or not self.peer else self.ours / self.peer

    @property
    def met(self) -> bool | None:
        if self.goal is None or self.ours is None:
            return None
        return self.ours >= self.goal if self.more_is_better else self.ours <= self.goal


def median(values: Sequence[float]) -> float:
    """p50."""
    return statistics.median(values)


def write(name: str, rows: Sequence[Row]) -> Path:
    """bench/results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps([described(row) for row in rows], indent=2) + "\n")
    return path


def described(row: Row) -> dict[str, object]:
    """A row for machines."""
    keys = ("claim", "unit", "ours", "peer", "peer_name", "goal", "command")
    return {**{key: asdict(row)[key] for key in keys}, "ratio": row.ratio, "met": row.met}


def table(rows: Sequence[Row]) -> str:
    """The rows, aligned: losses stand out by MISSED."""
    lines = [("CLAIM", "OURS", "PEER", "RATIO", "GOAL", "", "BESIDE")]
    for row in rows:
        bound = "≥" if row.more_is_better else "≤"
        goal = "" if row.goal is None else f"{bound} {_number(row.goal)}"
        verdict = {True: "met", False: "MISSED", None: ""}[row.met]
        ours = _number(row.ours) + f" {row.unit}"
        lines.append((row.claim, ours, _number(row.peer), _number(row.ratio), goal, verdict, row.peer_name))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{digits}f}"
