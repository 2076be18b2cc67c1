"""podctl apply: makes the server's objects what manifests say, document by document. The merge is the server's."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from podctl.client import Client, connect
from podctl.failure import Failure
from podctl.flags import Parser, add_file_flags
from podctl.manifests import Manifest
from podctl.submitting import add_result_flags, submit_all
from podplane.errors import NotFound

USAGE = "-f FILE [-f FILE ...] [-R] [flags]"
EXAMPLES = """
  podctl apply -f web.yaml
  podctl apply -f manifests/ -R
  generate | podctl apply -f -
"""

_REVISION = "deployment.kubernetes.io/revision"


def configure(parser: Parser) -> None:
    add_file_flags(parser)
    add_result_flags(parser)
    parser.switch("--server-side", help="refused: the merge is the server's in any case, without field managers")
    parser.switch("--prune", help="refused: delete what a manifest no longer holds by name or by label")


def run(args: Namespace) -> int:
    if args.server_side:
        raise Failure("error: --server-side: field managers are not supported; without it the server merges three ways")
    if args.prune:
        raise Failure("error: --prune is not supported: podctl delete -l SELECTOR removes what is no longer wanted")
    with connect(args) as client:
        return submit_all(args, client, _apply, "applying")


def _apply(client: Client, item: Manifest) -> tuple[Any, str]:
    metadata = item.obj.metadata
    if not metadata.name:
        if metadata.generateName:
            raise Failure(f"error: from {metadata.generateName}: cannot use generate name with apply")
        raise Failure(f"error: {item.source}: {item.place}: metadata.name: required")
    try:
        before = client.get(item.kind, metadata.namespace, metadata.name)
    except NotFound:
        before = None
    after = client.write("Apply", item.obj)
    if before is None or before.metadata.uid != after.metadata.uid:
        return after, "created"
    return after, "unchanged" if _applied(before) == _applied(after) else "configured"


def _applied(obj: Any) -> Any:
    """What an apply could have changed: controllers write statuses and their own annotations in between."""
    part = type(obj)()
    part.CopyFrom(obj)
    part.metadata.ClearField("resourceVersion")
    part.metadata.annotations.pop(_REVISION, None)
    if "status" in part.DESCRIPTOR.fields_by_name:
        part.ClearField("status")
    return part
