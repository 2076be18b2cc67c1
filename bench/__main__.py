"""`make bench`: runs every bench, prints its table and writes bench/results/NAME.json and pictures.

`python -m bench NAME ...` (`make bench NAMES=pods`) runs some of them: commands, store, pods, services.
"""

from __future__ import annotations

import argparse
import os
import sys

from bench import commands, plot, pods, services, store
from bench.results import table, write


def _say(text: str) -> None:
    print(f"  {text} ...", file=sys.stderr, flush=True)


def _commands() -> None:
    rows = commands.run(_say)
    print(f"{table(rows)}\n\n{write('commands', rows)}\n")


def _store() -> None:
    rows = store.run(_say)
    print(f"{table(rows)}\n\n{write('store', rows)}\n")


def _pods() -> None:
    rows, phases = pods.run(_say)
    print(f"{table(rows)}\n")
    print("Where our own time goes (p50, ms): " + ", ".join(f"{k} {v:.1f}" for k, v in phases.medians.items()))
    print(pods.blame(rows, phases))
    print(f"\n{write('pods', rows)}\n{plot.ratios('pods', rows)}\n{plot.phases('phases', phases.medians)}")


def _services() -> None:
    found, through = services.run(services.sizes(os.environ.get("SIZES") or services.SIZES), _say)
    rows = services.rows(found) + services.cluster_rows(through)
    print(f"{services.tables(found)}\n\n{table(rows)}\n{services.blame(rows)}\n")
    print(f"{services.write(found, through, rows)}\n{plot.curves('services', services.panels(found))}")


BENCHES = {"commands": _commands, "store": _store, "pods": _pods, "services": _services}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHES)}; all where none is named")
    names = parser.parse_args().names or list(BENCHES)
    if unknown := [name for name in names if name not in BENCHES]:
        parser.error(f"no bench is called {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    for name in names:
        BENCHES[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
