"""podctl delete: begins deletions and, unless told otherwise, waits until the objects are gone."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from podctl.client import Client, Query, connect
from podctl.durations import seconds_flag
from podctl.errors import Disconnected, wording
from podctl.failure import Failure
from podctl.flags import Parser, add_file_flags, add_selector_flags
from podctl.manifests import documents
from podctl.resources import object_word, quoted_word, targets
from podctl.watching import TimedOut, await_gone
from podplane.errors import NotFound, PodplaneError
from podplane.kinds import Kind

USAGE = "(TYPE NAME... | TYPE/NAME... | TYPE -l SELECTOR | TYPE --all | -f FILE) [flags]"
EXAMPLES = """
  podctl delete pod web
  podctl delete -f web.yaml
  podctl delete pods -l app=web --grace-period=5
  podctl delete pod web --force
  podctl delete deployment/web --cascade=orphan
"""


@dataclass(frozen=True, slots=True)
class _Doomed:
    kind: Kind
    namespace: str
    name: str


def configure(parser: Parser) -> None:
    parser.add_argument("what", metavar="TYPE", nargs="*", help="kinds and names")
    add_file_flags(parser)
    add_selector_flags(parser)
    parser.switch("--all", help="every object of these types in the namespace")
    parser.switch("-A", "--all-namespaces", help="with -l, --field-selector or --all: in every namespace")
    parser.add_argument(
        "--grace-period",
        metavar="SECONDS",
        type=int,
        default=-1,
        help="seconds between SIGTERM and SIGKILL (the pod's own); 0 only with --force",
    )
    parser.switch("--force", help="remove pods at once, without waiting for their node to confirm")
    parser.switch("--now", help="a grace period of 1 second")
    parser.add_argument(
        "--cascade",
        choices=("background", "foreground", "orphan"),
        default="background",
        help="what becomes of the objects that these own (background)",
    )
    parser.switch("--wait", default=True, help="wait until the objects are gone (true)")
    parser.add_argument("--timeout", metavar="DURATION", default="0s", help="give up waiting after this (0: never)")
    parser.switch("--ignore-not-found", help="what does not exist is no error")
    parser.add_argument("-o", "--output", choices=("name",), help="name: print TYPE/NAME only")


def run(args: Namespace) -> int:
    grace = _grace(args)
    failed = False
    with connect(args) as client:
        deadline = _deadline(args.timeout)
        waiting: list[tuple[_Doomed, str]] = []
        for doomed in _chosen(args, client):
            if isinstance(doomed, Failure):
                failed = True
                print(doomed.message, file=sys.stderr)
            elif not _delete(args, client, doomed, grace, waiting):
                failed = True
        for doomed, uid in waiting:
            _await_gone(client, doomed, uid, deadline)
    return 1 if failed else 0


def _grace(args: Namespace) -> int | None:
    if args.now and args.grace_period != -1:
        raise Failure("error: --now and --grace-period cannot be specified together")
    if args.force and (args.grace_period > 0 or args.now):
        raise Failure("error: --force and --grace-period greater than 0 cannot be specified together")
    if args.force:
        print(
            "Warning: Immediate deletion does not wait for confirmation that the running resource has been "
            "terminated. The resource may continue to run on the cluster indefinitely.",
            file=sys.stderr,
        )
        return 0
    if args.now or args.grace_period == 0:
        return 1  # as kubectl: losing data takes --force
    return args.grace_period if args.grace_period > 0 else None


def _deadline(timeout: str) -> float | None:
    seconds = seconds_flag("--timeout", timeout)
    return time.monotonic() + seconds if seconds > 0 else None


def _chosen(args: Namespace, client: Client) -> Iterator[_Doomed | Failure]:
    if args.filename:
        for item in documents(args.filename, args.recursive):
            if isinstance(item, Failure):
                yield item
                continue
            item.settle(client.namespace, args.namespace is not None)
            yield _Doomed(item.kind, item.obj.metadata.namespace, item.obj.metadata.name)
        return
    selecting = bool(args.selector or args.field_selector)
    for target in targets(args.what):
        if target.names and (selecting or args.all):
            raise Failure("error: name cannot be provided when a selector is specified")
        if not target.names and not selecting and not args.all:
            raise Failure("error: resource(s) were provided, but no name was specified")
        if target.names:
            yield from (_Doomed(target.kind, client.namespace, name) for name in target.names)
            continue
        query = Query("" if args.all_namespaces else client.namespace, args.selector or "", args.field_selector or "")
        for obj in client.list(target.kind, query).items:
            yield _Doomed(target.kind, obj.metadata.namespace, obj.metadata.name)


def _delete(
    args: Namespace, client: Client, doomed: _Doomed, grace: int | None, waiting: list[tuple[_Doomed, str]]
) -> bool:
    try:
        obj: Any = client.delete(
            doomed.kind, doomed.namespace, doomed.name, grace=grace, propagation=args.cascade.capitalize()
        )
    except Disconnected:
        raise
    except PodplaneError as error:
        if isinstance(error, NotFound) and (args.ignore_not_found or args.all):
            return True
        print(wording(error), file=sys.stderr)
        return False
    if args.output == "name":
        print(object_word(doomed.kind, doomed.name), flush=True)
    else:
        word = "force deleted" if args.force else "deleted"
        print(f"{quoted_word(doomed.kind, doomed.name)} {word}", flush=True)
    if args.wait:
        waiting.append((doomed, obj.metadata.uid))
    return True


def _await_gone(client: Client, doomed: _Doomed, uid: str, deadline: float | None) -> None:
    try:
        await_gone(client, doomed.kind, doomed.namespace, doomed.name, uid, deadline)
    except TimedOut:
        raise Failure(f"error: timed out waiting for the condition on {doomed.kind.plural}/{doomed.name}") from None
