"""podctl version: this program's version, and the control plane's. `--client` imports neither gRPC nor protobuf."""

from __future__ import annotations

from argparse import Namespace

from podctl.failure import UsageFailure
from podctl.flags import Parser
from podplane import __version__

USAGE = "[--client] [-o json|yaml]"
EXAMPLES = """
  podctl version
  podctl version --client
  podctl version -o json
"""


def configure(parser: Parser) -> None:
    parser.switch("--client", help="print podctl's own version only; asks no server")
    parser.add_argument("-o", "--output", metavar="FORMAT", help="json or yaml")


def run(args: Namespace) -> int:
    if args.output not in (None, "json", "yaml"):
        raise UsageFailure("--output must be 'yaml' or 'json'", "version")
    if args.output is None:
        print(f"Client Version: v{__version__}", flush=True)
    versions: dict[str, object] = {"clientVersion": {"gitVersion": f"v{__version__}"}}
    try:
        if not args.client:
            versions["serverVersion"] = _server(args)
    finally:
        _print(versions, args.output)
    return 0


def _server(args: Namespace) -> dict[str, str]:
    from podctl.client import connect
    from podplane.v1 import cluster_pb2

    with connect(args) as client:
        answer = client.call("Cluster/Version", cluster_pb2.VersionRequest(), cluster_pb2.VersionResponse)
    return {
        "gitVersion": f"v{answer.version.removeprefix('v')}",
        "clusterID": answer.clusterID,
        "epoch": answer.epoch,
        "revision": answer.revision,
    }


def _print(versions: dict[str, object], output: str | None) -> None:
    if output == "json":
        import json

        print(json.dumps(versions, indent=2))
    elif output == "yaml":
        import yaml

        print(yaml.safe_dump(versions, sort_keys=True), end="")
    elif isinstance(server := versions.get("serverVersion"), dict):
        print(f"Server Version: {server['gitVersion']}")
