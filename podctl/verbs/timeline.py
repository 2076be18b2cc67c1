"""podctl timeline: a pod's life as a waterfall, from its conditions, container states and events."""

from __future__ import annotations

import shutil
import sys
from argparse import Namespace

from podctl.client import Query, connect
from podctl.failure import UsageFailure
from podctl.flags import Parser
from podctl.lifeline import ASCII, Glyphs, draw
from podctl.resources import one_target
from podplane.kinds import EVENT, POD

USAGE = "POD [flags]"
EXAMPLES = """
  podctl timeline web
  podctl timeline pod/web -n shop
"""


def configure(parser: Parser) -> None:
    parser.add_argument("what", metavar="POD", nargs=1, help="a pod")
    parser.switch("--ascii", help="draw with plain characters")


def run(args: Namespace) -> int:
    kind, name = one_target(args.what, default="pods")
    if kind is not POD:
        raise UsageFailure(f"only pods have a timeline, not {kind.plural}", "timeline")
    with connect(args) as client:
        pod = client.get(POD, client.namespace, name)
        fields = f"involvedObject.kind=Pod,involvedObject.uid={pod.metadata.uid}"
        events = client.list(EVENT, Query(client.namespace, fields=fields)).items
    plain = args.ascii or not (sys.stdout.encoding or "").lower().startswith("utf")
    print(draw(pod, events, shutil.get_terminal_size().columns, ASCII if plain else Glyphs()))
    return 0
