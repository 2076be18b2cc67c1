"""Programs of a node that a test puts others in the place of."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from devcluster.cluster import Cluster
from devcluster.commands import run


@contextmanager
def replaced(
    cluster: Cluster, node: str, program: str, script: str, environment: Mapping[str, str] | None = None
) -> Iterator[Path]:
    """An agent of the node to which `program` is a shell script, where $REAL is the real one; then one as before.

    The script's file may be changed meanwhile. Only the node's mounts change. `environment`: what the agent has
    meanwhile beside its own.
    """
    found = shutil.which(program)
    assert found is not None, f"{program} is not installed"
    place = Path(found).resolve()
    aside, wrapper = (cluster.root / f"{program}.{name}" for name in ("real", "sh"))
    shutil.copy2(place, aside)
    wrapper.write_text(f"#!/bin/sh\nREAL={aside}\n{script}\n")
    wrapper.chmod(0o755)
    cluster.kill(node)
    run(cluster.inside(node, ["mount", "--bind", wrapper, place]))
    try:
        cluster.start_node(node, environment)
        yield wrapper
    finally:
        cluster.kill(node)
        run(cluster.inside(node, ["umount", place]))
        cluster.start_node(node)
