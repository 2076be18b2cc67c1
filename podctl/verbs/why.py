"""podctl why: node by node, whether a service's rules are as they should be, and where a packet would go."""

from __future__ import annotations

import time
from argparse import Namespace

from podctl import diagnosis
from podctl.client import connect
from podctl.failure import Failure
from podctl.flags import Parser
from podctl.output import parse_format, text
from podctl.resources import kind_named
from podplane.kinds import SERVICE
from podplane.manifest import printing
from podplane.v1 import diagnosis_pb2

USAGE = "service NAME [--from A] [--to B] [-o json|yaml] [flags]"
EXAMPLES = """
  podctl why service web                                   # does every node lead to its ready pods? what is missing?
  podctl why svc web --from pod/shell                      # where a packet of that pod to the cluster address goes
  podctl why svc web --from outside --to node/node-2       # from outside, to the node ports on node-2
  podctl why svc web --from node/node-1 --to cluster-ip:80 # to one port: a number or a name
  podctl why svc web --to 198.18.0.12:30080                # an address of the service or of a node
  podctl why svc web -o json | jq .nodes

The exit status is 0 where no link is missing, 1 where one is (or where it could not be asked).
"""
FORMATS = ("wide", "json", "yaml", "jsonpath", "jsonpath-as-json", "jsonpath-file")


def configure(parser: Parser) -> None:
    parser.add_argument("what", metavar="service", help="service or svc; SERVICE/NAME in one word will do")
    parser.add_argument("name", metavar="NAME", nargs="?", default="", help="the service")
    parser.add_argument(
        "--from", dest="source", metavar="A", default="", help="pod/NAME, pod/NAMESPACE/NAME, node/NAME or outside"
    )
    parser.add_argument(
        "--to", metavar="B", default="", help="cluster-ip, node/NAME or an address; with :PORT one port of it"
    )
    parser.add_argument("-o", "--output", metavar="FORMAT", help="wide (with the rules), json, yaml, jsonpath=...")


def run(args: Namespace) -> int:
    form = parse_format(args.output, FORMATS)
    what, _, joined = args.what.partition("/")
    name = args.name or joined
    if kind_named(what) is not SERVICE:
        raise Failure(f"error: there is no why of {what}: it is service")
    if not name:
        raise Failure("error: the service's NAME is required: podctl why service NAME")
    with connect(args) as client:
        request = diagnosis_pb2.ServiceDiagnosisRequest(namespace=client.namespace, name=name, to=args.to)
        setattr(request, "from", args.source)
        found = client.call("Diagnosis/Service", request, diagnosis_pb2.ServiceDiagnosis)
    if form.is_table:
        print("\n".join(diagnosis.lines(found, time.time(), wide=form.name == "wide")))
    else:
        print(text(printing.to_dict(found), form))
    return 0 if _is_well(found) else 1


def _is_well(found: diagnosis_pb2.ServiceDiagnosis) -> bool:
    """Of the paths, where these were asked for: a packet may arrive although another node lacks something."""
    return all(path.arrives for path in found.paths) if found.paths else found.healthy
