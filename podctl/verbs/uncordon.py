"""podctl uncordon: nodes take new pods again."""

from __future__ import annotations

from argparse import Namespace

from podctl.flags import Parser
from podctl.scheduling import configure_nodes, mark

USAGE = "NODE..."
EXAMPLES = """
  podctl uncordon node-1
  podctl uncordon -l rack=a
"""


def configure(parser: Parser) -> None:
    configure_nodes(parser)


def run(args: Namespace) -> int:
    return mark(args, unschedulable=False)
