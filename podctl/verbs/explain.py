"""podctl explain: what a status means, what causes it and how to mend it. Asks no server."""

from __future__ import annotations

import shutil
import textwrap
from argparse import Namespace

from podctl.failure import Failure
from podctl.flags import Parser
from podplane.errors import NotFound
from podplane.explain import EXPLANATIONS, Explanation, explain

USAGE = "[STATUS]"
EXAMPLES = """
  podctl explain CrashLoopBackOff
  podctl explain Init:1/2
  podctl explain
"""


def configure(parser: Parser) -> None:
    parser.add_argument(
        "status", metavar="STATUS", nargs="?", help="a status, condition or reason; none lists them all"
    )


def run(args: Namespace) -> int:
    if args.status is None:
        for one in EXPLANATIONS:
            print(f"{one.name:<26} {one.meaning}")
        return 0
    try:
        found = explain(args.status)
    except NotFound as error:
        raise Failure(f"error: {error}") from None
    print(_text(found, args.status, shutil.get_terminal_size().columns))
    return 0


def _text(found: Explanation, asked: str, width: int) -> str:
    title = found.name if found.name.lower() == asked.lower() else f"{found.name} (asked for: {asked})"
    rows = [
        ("STATUS", title),
        ("KIND", found.kind),
        ("MEANING", found.meaning),
        ("CAUSE", found.cause),
        ("FIX", found.fix),
    ]
    return "\n".join(
        textwrap.fill(text, max(width, 60), initial_indent=f"{name + ':':<10}", subsequent_indent=" " * 10)
        for name, text in rows
    )
