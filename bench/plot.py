"""Pictures of what a bench found, where people would rather look than read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.results import RESULTS, Row


def ratios(name: str, rows: Sequence[Row]) -> Path:
    """bench/results/NAME.svg: ours beside each peer, claim by claim."""
    from matplotlib.figure import Figure

    claims = list(dict.fromkeys(row.claim for row in rows))
    figure = Figure(figsize=(9, 1.6 * len(claims)), layout="constrained")
    for index, claim in enumerate(claims):
        axes = figure.add_subplot(len(claims), 1, index + 1)
        same = [row for row in rows if row.claim == claim]
        bars = [("podplane", same[0].ours), *((row.peer_name, row.peer) for row in same if row.peer is not None)]
        drawn = axes.barh([label for label, _ in bars], [value or 0.0 for _, value in bars], color="#9db4c8")
        drawn[0].set_color("#1f6feb")
        axes.bar_label(drawn, fmt="%.1f", padding=3)
        axes.margins(x=0.12)
        axes.invert_yaxis()
        unit = f" ({same[0].unit})" if same[0].unit else ""
        axes.set_title(f"{claim}{unit}", loc="left", fontsize=10)
        if same[0].goal is not None:
            axes.axvline(same[0].goal, color="#d1242f", linestyle=":", linewidth=1)
    return _save(figure, name)


def phases(name: str, medians: Mapping[str, float]) -> Path:
    """bench/results/NAME.svg: one pod's start as a waterfall of its phases' medians."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.add_subplot()
    begun = 0.0
    for label, milliseconds in medians.items():
        drawn = axes.barh(label, milliseconds, left=begun, color="#1f6feb")
        axes.bar_label(drawn, labels=[f"{milliseconds:.1f}"], padding=3)
        begun += milliseconds
    axes.margins(x=0.08)
    axes.invert_yaxis()
    axes.set_title(f"One pod from Create to Running: {begun:.0f} ms (medians of the phases)", loc="left", fontsize=10)
    axes.set_xlabel("ms")
    return _save(figure, name)


def curves(name: str, panels: Mapping[str, Mapping[str, Mapping[int, float]]]) -> Path:
    """bench/results/NAME.svg: a panel a measure, a line a subject, cost against the number of services."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    for index, (title, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(2, 2, index + 1)
        for label, points in lines.items():
            is_replica = label.startswith("replica")
            axes.plot(list(points), list(points.values()), marker="o", label=label,
                      linestyle=":" if is_replica else "-")  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("symlog", linthresh=1) if "packet" in title else axes.set_yscale("log")
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlabel("services, two endpoints each")
        if index == 0:
            axes.legend(fontsize=8)
    return _save(figure, name)


def _save(figure: object, name: str) -> Path:
    from matplotlib.figure import Figure

    assert isinstance(figure, Figure)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.svg"
    figure.savefig(path)
    return path
