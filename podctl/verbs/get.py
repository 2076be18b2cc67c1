"""podctl get: lists and watches objects in every output format."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from podctl import jsonpath, output
from podctl.client import Client, Page, Query, connect
from podctl.errors import wording
from podctl.failure import Failure
from podctl.flags import Parser, add_file_flags, add_selector_flags
from podctl.manifests import documents
from podctl.resources import Target, targets
from podctl.watching import Watcher
from podplane.errors import NotFound, PodplaneError
from podplane.kinds import Kind

USAGE = "(TYPE[,TYPE...] [NAME...] | TYPE/NAME ... | -f FILE) [-o FORMAT] [flags]"
EXAMPLES = """
  podctl get pods
  podctl get pods -o wide -A
  podctl get deployment/web service/web
  podctl get pods -l app=web --field-selector spec.nodeName=node-1
  podctl get pods -w --output-watch-events
  podctl get pod web -o jsonpath='{.status.podIP}'
  podctl get all
"""


def configure(parser: Parser) -> None:
    parser.add_argument("what", metavar="TYPE", nargs="*", help="kinds and names; 'podctl api-resources' lists kinds")
    parser.add_argument(
        "-o", "--output", metavar="FORMAT", help="wide, yaml, json, name, jsonpath=..., custom-columns=..."
    )
    parser.switch("-A", "--all-namespaces", help="objects of every namespace")
    parser.switch("-w", "--watch", help="then print changes as they come")
    parser.switch("--watch-only", help="print changes without the list before")
    parser.switch("--output-watch-events", help="say ADDED, MODIFIED or DELETED with each change")
    add_selector_flags(parser)
    add_file_flags(parser)
    parser.switch("--no-headers", help="print no header line")
    parser.switch("--show-labels", help="add a column with all labels")
    parser.switch("--show-kind", help="print names as TYPE/NAME")
    parser.add_argument(
        "-L", "--label-columns", metavar="LABEL", action="append", default=[], help="a column for a label"
    )
    parser.add_argument("--sort-by", metavar="PATH", help="order by a JSONPath: .metadata.creationTimestamp")
    parser.switch("--ignore-not-found", help="a name that does not exist is no error")
    parser.add_argument("--chunk-size", metavar="N", type=int, default=500, help="objects a request; 0 for all (500)")


def run(args: Namespace) -> int:
    form = output.parse_format(args.output)
    wanted = _from_files(args) if args.filename else targets(args.what)
    _check(args, wanted)
    with connect(args) as client:
        query = Query("" if args.all_namespaces else client.namespace, args.selector or "", args.field_selector or "")
        if args.watch or args.watch_only:
            return _watch(args, client, wanted[0], query, form)
        found, failures = _fetch(args, client, wanted, query)
        _print(args, found, failures, query, form)
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def _from_files(args: Namespace) -> list[Target]:
    found: list[Target] = []
    for document in documents(args.filename, args.recursive):
        if isinstance(document, Failure):
            raise document
        found.append(Target(document.kind, (document.obj.metadata.name,)))
    return found


def _check(args: Namespace, wanted: Sequence[Target]) -> None:
    named = any(target.names for target in wanted)
    if named and args.all_namespaces:
        raise Failure("error: a resource cannot be retrieved by name across all namespaces")
    if named and (args.selector or args.field_selector):
        raise Failure("error: name cannot be provided when a selector is specified")
    watching = args.watch or args.watch_only
    if watching and (len(wanted) != 1 or len(wanted[0].names) > 1):
        raise Failure("error: you may only specify a single resource type, and one name at most, with --watch")
    if watching and (args.output or "").startswith("custom-columns"):
        raise Failure("error: custom-columns cannot be watched: give -o json, yaml, name or jsonpath with --watch")
    if args.output_watch_events and not watching:
        raise Failure("error: --output-watch-events option can only be used with --watch or --watch-only")


def _fetch(
    args: Namespace, client: Client, wanted: Sequence[Target], query: Query
) -> tuple[list[tuple[Kind, list[Any]]], list[str]]:
    """The objects by kind, and a line for each name that is not there."""
    found: list[tuple[Kind, list[Any]]] = []
    failures: list[str] = []
    for target in wanted:
        if not target.names:
            objects = client.list(target.kind, query, args.chunk_size).items
            found.append((target.kind, _sorted(objects, args.sort_by)))
            continue
        named: list[Any] = []
        for name in target.names:
            try:
                named.append(client.get(target.kind, client.namespace, name))
            except PodplaneError as error:
                if not (args.ignore_not_found and isinstance(error, NotFound)):
                    failures.append(wording(error) or str(error))
        found.append((target.kind, _sorted(named, args.sort_by)))
    return found, failures


def _sorted(objects: list[Any], path: str | None) -> list[Any]:
    if not path:
        return objects

    def key(obj: Any) -> tuple[bool, str, float, str]:
        try:
            values = jsonpath.find(path, output.tree(obj))
        except jsonpath.JSONPathError as error:
            raise Failure(f"error: --sort-by: {error}") from None
        value = values[0] if values else None
        number = float(value) if isinstance(value, int | float) else 0.0
        return value is not None, type(value).__name__, number, str(value)

    return sorted(objects, key=key)


def _print(
    args: Namespace, found: list[tuple[Kind, list[Any]]], failures: list[str], query: Query, form: output.Format
) -> None:
    objects = [obj for _, group in found for obj in group]
    if form.name == "custom-columns":
        output.print_columns(objects, form, headers=not args.no_headers)
    elif not form.is_table:
        single = len(objects) == 1 and not failures and _one_named(args)
        if single:
            output.print_one(objects[0], form)
        elif objects or not failures:
            output.print_list(objects, form)
    elif not objects and not failures:
        if not args.ignore_not_found:
            _nothing(found, query)
    else:
        _print_tables(args, found, form)


def _one_named(args: Namespace) -> bool:
    return bool(args.filename) or len(args.what) == 2 or "/" in args.what[0]


def _nothing(found: list[tuple[Kind, list[Any]]], query: Query) -> None:
    namespaced = any(kind.namespaced for kind, _ in found)
    where = f" in {query.namespace} namespace." if query.namespace and namespaced else ""
    print(f"No resources found{where}", file=sys.stderr)


def _print_tables(args: Namespace, found: list[tuple[Kind, list[Any]]], form: output.Format) -> None:
    options = _options(args, form)
    if len(found) > 1:
        options = replace(options, kind_in_name=True)
    printed = False
    for kind, objects in found:
        if not objects:
            continue
        if printed:
            print()
        _printer(kind, options).print([("", obj) for obj in objects])
        printed = True


def _options(args: Namespace, form: output.Format) -> output.TableOptions:
    return output.TableOptions(
        wide=form.name == "wide",
        headers=not args.no_headers,
        namespaces=args.all_namespaces,
        labels=args.show_labels,
        label_columns=tuple(label for group in args.label_columns for label in group.split(",")),
        kind_in_name=args.show_kind,
        events=args.output_watch_events,
    )


def _printer(kind: Kind, options: output.TableOptions) -> output.TablePrinter:
    return output.TablePrinter(kind, options if kind.namespaced else replace(options, namespaces=False))


def _watch(args: Namespace, client: Client, target: Target, query: Query, form: output.Format) -> int:
    """Print the list, then changes until the person ends it."""
    if target.names:
        query = replace(query, fields=f"metadata.name={target.names[0]}")
    page: Page = client.list(target.kind, query, args.chunk_size)
    if target.names and not page.items:
        client.get(target.kind, client.namespace, target.names[0])  # raises NotFound in the server's words
    show = _shower(args, target.kind, form)
    if not args.watch_only:
        show([("ADDED", obj) for obj in _sorted(page.items, args.sort_by)])
    for change in Watcher(client, target.kind, query, page.items, page.revision).changes():
        show([(change.type, change.object)])
    return 0


def _shower(args: Namespace, kind: Kind, form: output.Format) -> Callable[[list[tuple[str, Any]]], None]:
    """What prints (event, object) pairs as they come."""
    if form.is_table:
        table = _printer(kind, _options(args, form))
        return lambda changes: table.print(changes) if changes else None
    printer = output.DocumentPrinter(form)

    def show(changes: list[tuple[str, Any]]) -> None:
        for event, obj in changes:
            printer.print(obj, event if args.output_watch_events else None)

    return show
