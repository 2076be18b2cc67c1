"""Service rules at size: each of our modes beside a layout replica of kube-proxy's, on one kernel, in one run.

Cold load, one change, 1,000 changes, memory, and what a connection's first packet takes, for each size. Times of ours
are those of the whole mode, from values to the kernel; times of a replica are those of the program that writes its
rules (bench/peers/kubeproxy.py). A change is an endpoint that comes, goes or is another one's successor.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.results import RESULTS, Row, described
from bench.rules import cluster, guest, race
from bench.rules.race import Found, Outcome
from bench.rules.scale import Size, parse
from bench.rules.trial import PACKETS, Figures

COMMAND = "make bench-services"
SIZES = "1000x2 5000x2 10000x2 30000x2 44125x1 5006x50"
TEN, THIRTY, MANY_ENDPOINTS = Size(10_000, 2), Size(30_000, 2), Size(5_006, 50)


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of a subject at a size, as a table shows it."""

    name: str
    unit: str
    of: Callable[[Figures], float | None]


def _times(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def _over(packet: float | None, other: float | None) -> float | None:
    return None if packet is None or other is None else packet - other


MEASURES = (
    Measure("cold load", "s", lambda found: found.cold),
    Measure("cold load, time on a CPU", "s", lambda found: found.cold_cpu),
    Measure("one change, p50", "ms", lambda found: _times(found.one)),
    Measure("one change, time on a CPU, p50", "ms", lambda found: _times(found.one_cpu)),
    Measure("1,000 changes at once", "s", lambda found: found.many),
    Measure("memory, kernel", "MB", lambda found: found.kernel_megabytes),
    Measure("memory, agent", "MB", lambda found: found.agent_megabytes),
    Measure("first packet over a node without rules, p50", "us", lambda found: _over(found.packet_p50, found.bare_p50)),
    Measure(
        "first packet over the same rules without a service, p50",
        "us",
        lambda found: _over(found.packet_p50, found.idle_p50),
    ),
    Measure("first packet, p99", "us", lambda found: found.packet_p99),
    Measure("first packet by a node without rules, p99", "us", lambda found: found.bare_p99),
    Measure("first packet by the same rules without a service, p99", "us", lambda found: found.idle_p99),
)


def sizes(text: str) -> list[Size]:
    """From `1000x2 44125x1`. Raises ValueError."""
    return [parse(word) for word in text.replace(",", " ").split()]


def run(wanted: Sequence[Size], say: Callable[[str], None]) -> tuple[Found, cluster.Figures]:
    """Measure: the rules alone, then a cluster."""
    through = cluster.run(say)
    found = race.race(wanted, say)
    return found | guest.race(found, say), through


# ── what is claimed ──────────────────────────────────────────────────────────────────────────────────────────────────


def rows(found: Found) -> list[Row]:
    """Our claims that have a goal, beside the replica of the same mode."""
    made: list[Row] = []
    for name, size, measure, goal in _claims(found):
        ours, (peer, theirs) = found[name].get(size), _peer(found, name, size)
        peer = f"{peer}{_why(theirs)}" if theirs is not None else _why(ours).lstrip(", ")
        claim = f"{name}, {size}: {measure.name}"
        figures = _figure(measure, ours), _figure(measure, theirs)
        made.append(Row(claim, measure.unit, *figures, peer, goal, False, COMMAND))
    return made


def cluster_rows(through: cluster.Figures) -> list[Row]:
    """What is claimed of the whole cluster, in our fastest mode."""
    restart = f"agent killed and started with {cluster.SERVICES:,} services"
    return [
        Row(claim, unit, value, None, beside, goal, False, COMMAND)
        for claim, unit, value, goal, beside in (
            ("Apply to first packet, last of 3 nodes, p50", "ms", through.apply_p50, 50.0, ""),
            ("Apply to first packet, last of 3 nodes, worst", "ms", through.apply_worst, None, ""),
            (f"{restart}: in step again", "s", through.restart_p50, 1.0, "from its start, imports included"),
            (f"{restart}: its CPU until then", "s", through.restart_cpu, None, ""),
            (f"{restart}: connections lost", "", float(through.lost), 0.0, f"of {through.asked:,} meanwhile"),
        )
    ]


def _claims(found: Found) -> list[tuple[str, Size, Measure, float | None]]:
    cold, one, many, *packets = MEASURES[0], MEASURES[2], MEASURES[4], MEASURES[7], MEASURES[8]
    wanted: list[tuple[str, Size, Measure, float | None]] = [
        ("nftables", TEN, cold, 0.5),
        ("nftables", MANY_ENDPOINTS, cold, 6.0),
        *(("nftables", size, one, 10.0) for size in found["nftables"]),
        ("nftables", TEN, many, None),
        *(("nftables", THIRTY, packet, 10.0) for packet in packets),
    ]
    for name, outcomes in found.items():
        if not name.startswith(("nftables", "replica")):
            wanted.append((name, TEN, one, 30.0))
            if isinstance(outcomes.get(TEN), Figures):
                wanted += [(name, TEN, cold, None), (name, TEN, many, None)]
    return [claim for claim in wanted if claim[1] in found[claim[0]]]


def _peer(found: Found, name: str, size: Size) -> tuple[str, Outcome | None]:
    if name.endswith(guest.IN_VM):
        return "our nftables there", found.get(f"nftables{guest.IN_VM}", {}).get(size)
    return "layout replica", found.get(f"replica of {name}", {}).get(size)


def _why(outcome: Outcome | None) -> str:
    """In a word; why stands below the tables."""
    return f", {outcome.partition(':')[0]}" if isinstance(outcome, str) else ""


def _figure(measure: Measure, outcome: Outcome | None) -> float | None:
    return measure.of(outcome) if isinstance(outcome, Figures) else None


# ── tables, files ────────────────────────────────────────────────────────────────────────────────────────────────────


def tables(found: Found) -> str:
    """A table a measure: subjects down, sizes across. Then why a cell is empty."""
    return "\n\n".join([*(_table(found, measure) for measure in MEASURES), _gaps(found)])


def _table(found: Found, measure: Measure) -> str:
    columns = list(next(iter(found.values())))
    lines = [[f"{measure.name} ({measure.unit})", *map(str, columns)]]
    for name, outcomes in found.items():
        cells = [_cell(measure, outcomes[size]) for size in columns]
        if any(cell != "-" for cell in cells):
            lines.append([f"  {name}", *cells])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])


def panels(found: Found) -> dict[str, dict[str, dict[int, float]]]:
    """What a picture shows: four measures, over the number of services of two endpoints each."""
    shown = (MEASURES[0], MEASURES[2], MEASURES[4], MEASURES[7])
    return {f"{measure.name} ({measure.unit})": {name: line for name, outcomes in found.items()
                                                  if (line := _line(measure, outcomes))}
            for measure in shown}  # fmt: skip


def _line(measure: Measure, outcomes: Mapping[Size, Outcome]) -> dict[int, float]:
    points = {size.services: _figure(measure, outcome) for size, outcome in outcomes.items() if size.endpoints == 2}
    return {services: value for services, value in sorted(points.items()) if value is not None}


def _cell(measure: Measure, outcome: Outcome) -> str:
    if isinstance(outcome, str):
        return outcome.partition(":")[0]
    value = measure.of(outcome)
    return "-" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _gaps(found: Found) -> str:
    reasons: dict[str, list[str]] = {}
    for name, outcomes in found.items():
        for size, outcome in outcomes.items():
            if isinstance(outcome, str):
                reasons.setdefault(f"{name}: {outcome}", []).append(str(size))
    return "\n".join(f"{', '.join(sizes)}: {reason}" for reason, sizes in reasons.items()) or "Nothing was left out."


def blame(found: Sequence[Row]) -> str:
    """What holds back what was missed, as measured (README.md of bench)."""
    missed = [row.claim for row in found if row.met is False]
    return f"Missed: {'; '.join(missed)}. What holds them back: bench/README.md." if missed else "Every goal was met."


def write(found: Found, through: cluster.Figures, made: Sequence[Row]) -> Path:
    """bench/results/services.json: the machine, our claims, and every figure."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "services.json"
    figures = {
        name: {str(size): asdict(found) if isinstance(found, Figures) else found for size, found in outcomes.items()}
        for name, outcomes in found.items()
    }
    told = {
        "machine": machine(),
        "claims": [described(row) for row in made],
        "packets": PACKETS,
        "figures": figures,
        "cluster": asdict(through),
    }
    path.write_text(json.dumps(told, indent=2) + "\n")
    return path


def machine() -> dict[str, object]:
    """What the figures depend on."""
    models = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
              if line.startswith("model name")]  # fmt: skip
    return {
        "kernel": platform.release(),
        "cpu": models[0] if models else platform.machine(),
        "cpus": os.cpu_count(),
        "memory_megabytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1_000_000,
        "python": platform.python_version(),
        "nft": _version("nft"),
        "iptables": _version("iptables"),
        "load_average": os.getloadavg(),
    }


def _version(program: str) -> str:
    if shutil.which(program) is None:
        return "not installed"
    return subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10).stdout.strip()
