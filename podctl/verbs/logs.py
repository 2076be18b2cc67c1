"""podctl logs: prints what containers wrote, of one pod or of many."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from podctl.client import Client, Query, connect
from podctl.durations import seconds_flag
from podctl.failure import Failure, UsageFailure
from podctl.flags import Parser
from podctl.logstreams import Source, print_all
from podctl.podtarget import DEFAULT_CONTAINER, pods_behind
from podctl.resources import one_target
from podplane.kinds import POD
from podplane.v1 import requests_pb2

USAGE = "(POD | TYPE/NAME | -l SELECTOR) [-c CONTAINER] [flags]"
EXAMPLES = """
  podctl logs web
  podctl logs web -c app -f --tail=20
  podctl logs deployment/web --all-containers --prefix
  podctl logs -l app=web --since=5m
  podctl logs web --previous
"""

_SELECTED_TAIL = 10


def configure(parser: Parser) -> None:
    parser.add_argument("what", metavar="POD", nargs="*", help="a pod, or TYPE/NAME of what has pods; then a container")
    parser.add_argument("-c", "--container", metavar="NAME", help="the container (the default one, or the first)")
    parser.switch("--all-containers", help="every container of the pod")
    parser.switch("-f", "--follow", help="go on as more is written")
    parser.switch("-p", "--previous", help="the container's run before this one")
    parser.switch("--timestamps", help="begin each line with its time")
    parser.switch("--prefix", help="begin each line with its pod and container")
    parser.add_argument("--tail", metavar="N", type=int, help="the last N lines (-1: all; with -l: 10)")
    parser.add_argument("--since", metavar="DURATION", help="only what is newer than this: 5s, 2m, 3h")
    parser.add_argument("--since-time", metavar="TIME", help="only what is newer than this RFC 3339 time")
    parser.add_argument("--limit-bytes", metavar="N", type=int, help="at most this many bytes")
    parser.add_argument("-l", "--selector", metavar="SELECTOR", help="every pod with these labels")
    parser.add_argument("--max-log-requests", metavar="N", type=int, default=5, help="streams followed at once (5)")
    parser.switch("--ignore-errors", help="with -f: one stream's failure does not end the others")


def run(args: Namespace) -> int:
    _check(args)
    with connect(args) as client:
        pods = _pods(args, client)
        sources = [Source(client, _request(args, pod, name)) for pod in pods for name in _containers(args, pod)]
        if args.follow and len(sources) > args.max_log_requests:
            raise Failure(
                f"error: you are attempting to follow {len(sources)} log streams, but maximum allowed concurrency is "
                f"{args.max_log_requests}, use --max-log-requests to increase the limit"
            )
        return print_all(sources, prefix=args.prefix, together=args.follow, ignore_errors=args.ignore_errors)


def _check(args: Namespace) -> None:
    if bool(args.what) == bool(args.selector):
        raise UsageFailure("expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]', or a selector (-l)", "logs")
    if len(args.what) > 2:
        raise UsageFailure("only one pod and one container can be named", "logs")
    if len(args.what) == 2:
        if args.container:
            raise UsageFailure("only one of -c or an inline [CONTAINER] arg is allowed", "logs")
        args.container = args.what.pop()
    if args.container and args.all_containers:
        raise UsageFailure("--all-containers=true should not be specified with container name", "logs")
    if args.since and args.since_time:
        raise UsageFailure("at most one of `sinceTime` or `sinceSeconds` may be specified", "logs")
    if args.limit_bytes is not None and args.limit_bytes < 1:
        raise UsageFailure("--limit-bytes must be greater than 0", "logs")
    if args.tail is not None and args.tail < -1:
        raise UsageFailure("--tail must be greater than or equal to -1", "logs")


def _pods(args: Namespace, client: Client) -> list[Any]:
    if args.selector:
        pods = client.list(POD, Query(client.namespace, args.selector)).items
        if not pods:
            print(f"No resources found in {client.namespace} namespace.", file=sys.stderr)
        return list(pods)
    kind, name = one_target(args.what, default="pods")
    obj = client.get(kind, client.namespace, name)
    if kind is POD:
        return [obj]
    chosen, *others = pods_behind(client, kind, obj, "get the logs of")
    if others:
        print(f"Found {len(others) + 1} pods, using pod/{chosen.metadata.name}", file=sys.stderr)
    return [chosen]


def _containers(args: Namespace, pod: Any) -> Sequence[str]:
    if args.container:
        return [args.container]
    apps = [one.name for one in pod.spec.containers]
    if args.all_containers:
        return [*(one.name for one in pod.spec.initContainers), *apps]
    default = pod.metadata.annotations.get(DEFAULT_CONTAINER)
    if default:
        return [default]
    if len(apps) + len(pod.spec.initContainers) > 1 and not args.selector:
        every = ", ".join([*apps, *(f"{one.name} (init)" for one in pod.spec.initContainers)])
        print(f'Defaulted container "{apps[0]}" out of: {every}', file=sys.stderr)
    return apps[:1]


def _request(args: Namespace, pod: Any, container: str) -> requests_pb2.LogsRequest:
    tail = args.tail if args.tail is not None else _SELECTED_TAIL if args.selector else -1
    request = requests_pb2.LogsRequest(
        namespace=pod.metadata.namespace,
        name=pod.metadata.name,
        container=container,
        follow=args.follow or None,
        previous=args.previous or None,
        timestamps=args.timestamps or None,
        tailLines=tail if tail >= 0 else None,
        limitBytes=args.limit_bytes,
    )
    if args.since:
        seconds = seconds_flag("--since", args.since)
        if seconds <= 0:
            raise UsageFailure("--since must be greater than 0", "logs")
        request.sinceSeconds = max(1, round(seconds))
    if args.since_time:
        request.sinceTime.FromDatetime(_moment(args.since_time))
    return request


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = datetime.min
    if moment.tzinfo is None:
        raise Failure(f"error: --since-time: {text} is not an RFC 3339 time, such as 2024-05-01T12:00:00Z")
    return moment
