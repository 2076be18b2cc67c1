"""podctl label: sets and removes labels of objects."""

from __future__ import annotations

from argparse import Namespace

from podctl.flags import Parser
from podctl.marking import configure_marks, mark

USAGE = "(TYPE NAME... | TYPE/NAME... | TYPE --all) KEY=VALUE... KEY-... [--overwrite]"
EXAMPLES = """
  podctl label pod web tier=front
  podctl label node/node-1 rack=b --overwrite
  podctl label pods --all tier-
"""


def configure(parser: Parser) -> None:
    configure_marks(parser, "label")


def run(args: Namespace) -> int:
    return mark(args, "labels", "labeled")
