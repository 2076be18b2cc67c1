"""podctl top: how much CPU and memory pods or nodes use now."""

from __future__ import annotations

import sys
from argparse import Namespace

from podctl.client import Client, Query, connect
from podctl.failure import Failure
from podctl.flags import Parser, add_selector_flags
from podctl.resources import kind_named
from podctl.tabwriter import Columns
from podctl.usage import NODE_COLUMNS, PodTable, node_rows
from podplane.kinds import NODE, POD
from podplane.v1 import metrics_pb2

USAGE = "(pods | nodes) [NAME | -l LABEL] [flags]"
EXAMPLES = """
  podctl top pods
  podctl top pod web --containers
  podctl top pods -A --sort-by=memory
  podctl top pods -l app=web --sum
  podctl top nodes
"""
SORTS = ("cpu", "memory")


def configure(parser: Parser) -> None:
    parser.add_argument("what", metavar="pods | nodes", help="pods (pod, po) or nodes (node, no)")
    parser.add_argument("name", metavar="NAME", nargs="?", help="one pod or node; all of them where it is left out")
    add_selector_flags(parser)
    parser.switch("-A", "--all-namespaces", help="pods of every namespace")
    parser.switch("--containers", help="a line for each container")
    parser.switch("--sum", help="the sum of all pods, below them")
    parser.switch("--show-capacity", help="shares of the nodes' capacity, not of what is allocatable")
    parser.switch("--no-headers", help="print no header line")
    parser.add_argument("--sort-by", metavar="cpu|memory", default="", help="the greatest first")


def run(args: Namespace) -> int:
    kind = kind_named(args.what)
    if kind not in (POD, NODE):
        raise Failure(f"error: there is no top of {kind.plural}: it is pods or nodes")
    if args.sort_by not in ("", *SORTS):
        raise Failure("error: --sort-by accepts only cpu or memory")
    if args.name and (args.selector or args.field_selector):
        raise Failure("error: only one of NAME or selector can be provided")
    with connect(args) as client:
        return _pods(args, client) if kind is POD else _nodes(args, client)


def _pods(args: Namespace, client: Client) -> int:
    namespace = "" if args.all_namespaces and not args.name else client.namespace
    request = metrics_pb2.MetricsRequest(
        namespace=namespace, name=args.name, labelSelector=args.selector, fieldSelector=args.field_selector
    )
    found = client.call("Metrics/Pods", request, metrics_pb2.PodMetricsList).items
    if not found:
        if args.name:
            raise Failure(f"error: Metrics not available for pod {namespace}/{args.name}")
        print(f"No resources found{f' in {namespace} namespace.' if namespace else ''}", file=sys.stderr)
        return 0
    table = PodTable(args.all_namespaces, args.containers, args.sum, args.sort_by)
    _print(args, table.header, table.rows(found))
    return 0


def _nodes(args: Namespace, client: Client) -> int:
    request = metrics_pb2.MetricsRequest(name=args.name, labelSelector=args.selector, fieldSelector=args.field_selector)
    found = client.call("Metrics/Nodes", request, metrics_pb2.NodeMetricsList).items
    query = Query("", args.selector or "", args.field_selector or "")
    nodes = [client.get(NODE, "", args.name)] if args.name else client.list(NODE, query).items
    if not found:
        raise Failure("error: metrics not available yet")
    _print(args, list(NODE_COLUMNS), node_rows(nodes, found, args.sort_by, capacity=args.show_capacity))
    return 0


def _print(args: Namespace, header: list[str], rows: list[list[str]]) -> None:
    # kubectl ends every cell of these tables with a tab: the last one is padded too.
    lines = [*([] if args.no_headers else [header]), *rows]
    for line in Columns().lines([[*cells, ""] for cells in lines]):
        print(line)
