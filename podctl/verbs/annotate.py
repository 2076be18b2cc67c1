"""podctl annotate: sets and removes annotations of objects."""

from __future__ import annotations

from argparse import Namespace

from podctl.flags import Parser
from podctl.marking import configure_marks, mark

USAGE = "(TYPE NAME... | TYPE/NAME... | TYPE --all) KEY=VALUE... KEY-... [--overwrite]"
EXAMPLES = """
  podctl annotate pod web tier=front
  podctl annotate node/node-1 rack=b --overwrite
  podctl annotate pods --all tier-
"""


def configure(parser: Parser) -> None:
    configure_marks(parser, "annotation")


def run(args: Namespace) -> int:
    return mark(args, "annotations", "annotated")
