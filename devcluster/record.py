"""What stands of a cluster, written down before it is used: holders and daemons by pid and start time."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from devcluster.commands import run
from devcluster.errors import DevClusterError
from devcluster.proc import Process


@dataclass(slots=True)
class Record:
    """Holders and daemons by name, and the number of the cluster's network: 198.18.<network>.0/24."""

    network: int
    holders: dict[str, Process] = field(default_factory=dict)
    daemons: dict[str, Process] = field(default_factory=dict)

    def save(self, root: Path) -> None:
        """Write cluster.json whole, or leave the one before."""
        new = root / "cluster.json.new"
        new.write_text(json.dumps(asdict(self)))
        new.replace(root / "cluster.json")


def load(root: Path, tag: str) -> Record:
    """The record of the cluster below `root`; a fresh one, with a network that is free, where there is none."""
    try:
        stored = json.loads((root / "cluster.json").read_text())
    except FileNotFoundError:
        return Record(network=_free_network(tag))
    return Record(
        stored["network"],
        {name: Process(**process) for name, process in stored["holders"].items()},
        {name: Process(**process) for name, process in stored["daemons"].items()},
    )


def _free_network(tag: str) -> int:
    """198.18.0.0/15 is kept for tests of network equipment (RFC 2544): nobody routes it."""
    taken = run(["ip", "-4", "-o", "route", "show", "table", "all"])
    first = int(tag, 16) % 250
    for step in range(250):
        number = (first + step) % 250
        if f"198.18.{number}." not in taken:
            return number
    raise DevClusterError("no free network below 198.18.0.0/16: run `make down` where clusters still stand")
