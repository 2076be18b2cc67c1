"""podctl replace: makes objects exactly what manifests say; what these leave out is gone."""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from typing import Any

from podctl.client import Client, connect
from podctl.failure import UsageFailure
from podctl.flags import Parser, add_file_flags
from podctl.manifests import Manifest
from podctl.resources import quoted_word
from podctl.submitting import add_result_flags, submit_all
from podctl.watching import await_gone
from podplane.errors import NotFound

USAGE = "-f FILE [-f FILE ...] [-R] [flags]"
EXAMPLES = """
  podctl replace -f web.yaml
  podctl get deployment web -o yaml | sed s/web:1/web:2/ | podctl replace -f -
"""


def configure(parser: Parser) -> None:
    add_file_flags(parser)
    add_result_flags(parser)
    parser.switch("--force", help="delete the objects, wait until they are gone, and create them anew")
    parser.add_argument("--grace-period", metavar="SECONDS", type=int, default=-1, help="with --force: of the deletion")


def run(args: Namespace) -> int:
    with connect(args) as client:
        if args.grace_period >= 0 and not args.force:
            raise UsageFailure("--grace-period must have --force specified", "replace")
        send = partial(_recreate, args) if args.force else _replace
        return submit_all(args, client, send, "replacing", "replaced")


def _replace(client: Client, item: Manifest) -> tuple[Any, str]:
    """A manifest with a resourceVersion replaces that revision only; one without replaces whatever is there."""
    return client.write("Update", item.obj), "replaced"


def _recreate(args: Namespace, client: Client, item: Manifest) -> tuple[Any, str]:
    """Also what cannot be changed in place is changed so."""
    metadata = item.obj.metadata
    if args.dry_run == "server":
        return _replace(client, item)
    try:
        grace = args.grace_period if args.grace_period >= 0 else None
        gone = client.delete(item.kind, metadata.namespace, metadata.name, grace=grace)
        print(f"{quoted_word(item.kind, metadata.name)} deleted", flush=True)
        await_gone(client, item.kind, metadata.namespace, metadata.name, gone.metadata.uid, None)
    except NotFound:
        pass
    metadata.ClearField("resourceVersion")
    metadata.ClearField("uid")
    return client.write("Create", item.obj), "replaced"
