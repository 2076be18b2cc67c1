"""podctl events: what happened, the newest last."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from typing import Any

from podctl import output
from podctl.client import Query, connect
from podctl.flags import Parser
from podctl.resources import one_target
from podctl.tables import event_object, event_times
from podctl.tabwriter import Columns
from podctl.watching import Watcher
from podplane.duration import human
from podplane.kinds import EVENT

USAGE = "[--for TYPE/NAME] [--types Normal,Warning] [-A] [-w] [flags]"
EXAMPLES = """
  podctl events
  podctl events --for pod/web
  podctl events -A --types=Warning -w
"""


def configure(parser: Parser) -> None:
    parser.add_argument("--for", dest="about", metavar="TYPE/NAME", help="only events of this object")
    parser.add_argument("--types", metavar="TYPE[,TYPE]", default="", help="Normal, Warning")
    parser.switch("-A", "--all-namespaces", help="events of every namespace")
    parser.switch("-w", "--watch", help="then print events as they come")
    parser.switch("--no-headers", help="print no header line")
    parser.add_argument("-o", "--output", metavar="FORMAT", help="json, yaml, name or jsonpath=TEMPLATE")


def run(args: Namespace) -> int:
    form = output.parse_format(args.output, ("json", "yaml", "name", "jsonpath"))
    types = {word.strip().lower() for word in args.types.split(",") if word}
    with connect(args) as client:
        fields = ""
        if args.about:
            kind, name = one_target([args.about])
            fields = f"involvedObject.kind={kind.name},involvedObject.name={name}"
        query = Query("" if args.all_namespaces else client.namespace, fields=fields)
        page = client.list(EVENT, query)
        found = [event for event in by_time(page.items) if not types or event.type.lower() in types]
        columns = Columns()
        if form.name and not args.watch:
            output.print_list(found, form)
        elif not found and not args.watch:
            where = "" if args.all_namespaces else f" in {client.namespace} namespace"
            print(f"No events found{where}.", file=sys.stderr)
        else:
            _show(columns, found, args, form, header=not args.no_headers)
        if args.watch:
            for change in Watcher(client, EVENT, query, page.items, page.revision).changes():
                if change.type != "DELETED" and (not types or change.object.type.lower() in types):
                    _show(columns, [change.object], args, form, header=False)
    return 0


def by_time(events: list[Any]) -> list[Any]:
    """The events, the one seen last at the end."""
    return sorted(events, key=lambda event: (event_times(event)[1], event.metadata.resourceVersion.zfill(20)))


def seen(event: Any, now: float) -> str:
    """`5s`, or `5s (x3 over 10m)`."""
    first, last, count = event_times(event)
    if not last:
        return "<unknown>"
    return f"{human(now - last)} (x{count} over {human(now - first)})" if count > 1 else human(now - last)


def _show(columns: Columns, events: list[Any], args: Namespace, form: output.Format, *, header: bool) -> None:
    if form.name:
        for event in events:
            output.print_one(event, form)
        print(end="", flush=True)
        return
    now = time.time()
    titles = ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    rows = [[seen(one, now), one.type, one.reason, event_object(one), one.message.strip()] for one in events]
    if args.all_namespaces:
        titles = ["NAMESPACE", *titles]
        rows = [[one.metadata.namespace, *row] for one, row in zip(events, rows, strict=True)]
    for line in columns.lines(([titles] if header else []) + rows):
        print(line, flush=True)
