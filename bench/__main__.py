"""`make bench`: runs every bench, prints its table and writes bench/results/NAME.json and pictures."""

from __future__ import annotations

import sys

from bench import commands, plot, pods, store
from bench.results import table, write


def _say(text: str) -> None:
    print(f"  {text} ...", file=sys.stderr, flush=True)


def main() -> int:
    rows = commands.run(_say)
    print(f"{table(rows)}\n\n{write('commands', rows)}\n")
    rows = store.run(_say)
    print(f"{table(rows)}\n\n{write('store', rows)}\n")
    rows, phases = pods.run(_say)
    print(f"{table(rows)}\n")
    print("Where our own time goes (p50, ms): " + ", ".join(f"{k} {v:.1f}" for k, v in phases.medians.items()))
    print(pods.blame(rows, phases))
    print(f"\n{write('pods', rows)}\n{plot.ratios('pods', rows)}\n{plot.phases('phases', phases.medians)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
