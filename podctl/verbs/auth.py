"""podctl auth: may I do this, and who am I? The answers are the control plane's."""

from __future__ import annotations

from argparse import Namespace

from podctl import output
from podctl.client import connect
from podctl.failure import UsageFailure
from podctl.flags import Parser
from podctl.resources import kind_named
from podctl.tabwriter import Columns
from podplane.manifest import printing
from podplane.v1 import cluster_pb2

USAGE = "(can-i VERB TYPE[/NAME] | whoami) [flags]"
EXAMPLES = """
  podctl auth can-i create pods
  podctl auth can-i delete deployment/web -n shop
  podctl auth whoami
"""


def configure(parser: Parser) -> None:
    parser.add_argument("action", choices=("can-i", "whoami"))
    parser.add_argument("what", metavar="VERB TYPE[/NAME]", nargs="*", help="can-i: what you would do")
    parser.switch("-q", "--quiet", help="can-i: answer by the exit status alone")
    parser.switch("-A", "--all-namespaces", help="can-i: in every namespace")
    parser.add_argument("-o", "--output", metavar="FORMAT", help="whoami: json or yaml")


def run(args: Namespace) -> int:
    if args.action == "whoami":
        return _whoami(args)
    if len(args.what) not in (2, 3):
        raise UsageFailure("you must specify two or three arguments: verb, resource, and optional resourceName", "auth")
    verb, resource = args.what[0], args.what[1]
    resource, _, name = resource.partition("/")
    with connect(args) as client:
        request = cluster_pb2.CanRequest(
            verb=verb,
            resource=resource if resource == "*" else kind_named(resource).plural,
            namespace=None if args.all_namespaces else client.namespace,
            name=(name or (args.what[2] if len(args.what) == 3 else "")) or None,
        )
        answer = client.call("Cluster/Can", request, cluster_pb2.CanResponse)
    if not args.quiet:
        reason = f" - {answer.reason}" if answer.reason and not answer.allowed else ""
        print(f"{'yes' if answer.allowed else 'no'}{reason}")
    return 0 if answer.allowed else 1


def _whoami(args: Namespace) -> int:
    if args.what:
        raise UsageFailure("whoami takes no arguments", "auth")
    form = output.parse_format(args.output, ("json", "yaml"))
    with connect(args) as client:
        answer = client.call("Cluster/WhoAmI", cluster_pb2.WhoAmIRequest(), cluster_pb2.WhoAmIResponse)
    if form.name:
        data = {"status": {"userInfo": printing.to_dict(answer)}}
        print(printing.dump_json(data) if form.name == "json" else printing.dump_yaml(data).rstrip("\n"))
        return 0
    rows = [["ATTRIBUTE", "VALUE"], ["Username", answer.username], ["Groups", f"[{' '.join(answer.groups)}]"]]
    print("\n".join(Columns().lines(rows)))
    return 0
