"""podctl replace: makes objects exactly what manifests say; what these leave out is gone."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from podctl.client import Client, connect
from podctl.flags import Parser, add_file_flags
from podctl.manifests import Manifest
from podctl.submitting import add_result_flags, submit_all

USAGE = "-f FILE [-f FILE ...] [-R] [flags]"
EXAMPLES = """
  podctl replace -f web.yaml
  podctl get deployment web -o yaml | sed s/web:1/web:2/ | podctl replace -f -
"""


def configure(parser: Parser) -> None:
    add_file_flags(parser)
    add_result_flags(parser)


def run(args: Namespace) -> int:
    with connect(args) as client:
        return submit_all(args, client, _replace, "replacing", "replaced")


def _replace(client: Client, item: Manifest) -> tuple[Any, str]:
    """A manifest with a resourceVersion replaces that revision only; one without replaces whatever is there."""
    return client.write("Update", item.obj), "replaced"
