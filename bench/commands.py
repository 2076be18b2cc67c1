"""How soon podctl answers: `podctl version --client`, p50 of 20."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.results import Row, median

RUNS = 20


def run(say: Callable[[str], None]) -> list[Row]:
    """One row; the peer is kubectl where it is installed."""
    say("commands: podctl version --client")
    ours = _p50([str(Path(sys.executable).parent / "podctl"), "version", "--client"])
    kubectl = shutil.which("kubectl")
    theirs = _p50([kubectl, "version", "--client"]) if kubectl else None
    peer = "kubectl" if kubectl else "SKIPPED: kubectl is not installed"
    return [Row("podctl version --client, p50 of 20", "ms", ours, theirs, peer, 250.0, False, "make bench")]


def _p50(argv: Sequence[str]) -> float:
    took = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        subprocess.run(argv, check=True, capture_output=True, timeout=30)
        took.append((time.perf_counter() - begun) * 1000)
    return median(took)
