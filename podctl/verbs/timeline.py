"""podctl timeline: where a pod's start went and what it lived through since, as a waterfall in text or SVG.

From the steps that its node measured, conditions, container states and events.
"""

from __future__ import annotations

import shutil
import sys
from argparse import Namespace
from typing import Any

from podctl.client import Client, Query, connect
from podctl.failure import UsageFailure
from podctl.flags import Parser
from podctl.lifeline import ASCII, Glyphs, draw, panels, title
from podctl.resources import one_target
from podplane.kinds import EVENT, POD

USAGE = "(POD | -l SELECTOR) [flags]"
EXAMPLES = """
  podctl timeline web
  podctl timeline pod/web -n shop
  podctl timeline -l app=web
  podctl timeline web -o svg > web.svg
"""


def configure(parser: Parser) -> None:
    parser.add_argument("what", metavar="POD", nargs="*", help="a pod")
    parser.add_argument("-l", "--selector", metavar="SELECTOR", help="every pod with these labels")
    parser.add_argument("-o", "--output", choices=("svg",), help="svg: a picture, for a browser")
    parser.switch("--ascii", help="draw with plain characters")


def run(args: Namespace) -> int:
    if bool(args.what) == bool(args.selector):
        raise UsageFailure("expected a pod or a selector (-l)", "timeline")
    with connect(args) as client:
        lives = [(pod, _events(client, pod)) for pod in _pods(client, args)]
    if not lives:
        print(f"No resources found in {client.namespace} namespace.", file=sys.stderr)
    elif args.output:
        from podctl.picture import picture

        print(picture([(title(pod), panels(pod, events)) for pod, events in lives]))
    else:
        plain = args.ascii or not (sys.stdout.encoding or "").lower().startswith("utf")
        width, glyphs = shutil.get_terminal_size().columns, ASCII if plain else Glyphs()
        print("\n\n".join(draw(pod, events, width, glyphs) for pod, events in lives))
    return 0


def _pods(client: Client, args: Namespace) -> list[Any]:
    if args.selector:
        return client.list(POD, Query(client.namespace, args.selector)).items
    kind, name = one_target(args.what, default="pods")
    if kind is not POD:
        raise UsageFailure(f"only pods have a timeline, not {kind.plural}", "timeline")
    return [client.get(POD, client.namespace, name)]


def _events(client: Client, pod: Any) -> list[Any]:
    fields = f"involvedObject.kind=Pod,involvedObject.uid={pod.metadata.uid}"
    return client.list(EVENT, Query(client.namespace, fields=fields)).items
