"""`python -m devcluster up | down | demo`: what `make up`, `make down` and `make demo` run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from devcluster.cluster import CHECKOUT, CLUSTERS, Cluster, Options
from devcluster.demo import demo
from devcluster.errors import DevClusterError


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m devcluster", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="start what is missing of a cluster and leave it running")
    up.add_argument("--nodes", type=int, default=3, help="how many nodes (3)")
    up.add_argument("--registries-conf", type=Path, help="containers-registries.conf(5) for the nodes")
    up.add_argument("--runtime", choices=("auto", "crun", "runc"), default="auto")
    for verb in (up, verbs.add_parser("down", help="remove it, whatever state it is in")):
        verb.add_argument("--directory", type=Path, default=CHECKOUT / ".run")
    verbs.add_parser("demo", help="the main job from manifest to served page, then everything removed")
    return parser


def _up(arguments: argparse.Namespace) -> None:
    options = Options(registries_conf=arguments.registries_conf, runtime=arguments.runtime)
    cluster = Cluster(arguments.directory, options, _say)
    cluster.up(arguments.nodes)
    cluster.await_ready(arguments.nodes)
    print(cluster.hints())


def main() -> int:
    arguments = _parser().parse_args()
    try:
        if arguments.verb == "up":
            _up(arguments)
        elif arguments.verb == "down":
            Cluster(arguments.directory, say=_say).down()
        else:
            demo(CLUSTERS / "demo", _say)
    except DevClusterError as failure:
        print(f"{arguments.verb}: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
