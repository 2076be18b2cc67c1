"""podctl cordon: nodes take no new pods; those that run stay."""

from __future__ import annotations

from argparse import Namespace

from podctl.flags import Parser
from podctl.scheduling import configure_nodes, mark

USAGE = "NODE..."
EXAMPLES = """
  podctl cordon node-1
  podctl cordon -l rack=a
"""


def configure(parser: Parser) -> None:
    configure_nodes(parser)


def run(args: Namespace) -> int:
    return mark(args, unschedulable=True)
