"""podctl wait: returns when objects exist, are gone, or meet a condition or a JSONPath."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any

from podctl import jsonpath, output
from podctl.client import Client, Query, connect
from podctl.durations import seconds_flag
from podctl.failure import Failure, UsageFailure
from podctl.flags import Parser, add_file_flags, add_selector_flags
from podctl.manifests import documents
from podctl.resources import object_word, targets
from podctl.watching import TimedOut, Watcher
from podplane.kinds import Kind

USAGE = "(TYPE NAME... | TYPE/NAME... | TYPE -l SELECTOR | -f FILE) --for=CONDITION [--timeout=30s]"
EXAMPLES = """
  podctl wait --for=condition=Ready pod/web --timeout=60s
  podctl wait --for=condition=Available deployment/web
  podctl wait --for=delete pod/web
  podctl wait --for=jsonpath='{.status.phase}'=Succeeded pod/job
  podctl wait --for=create pod/web
"""

_A_WEEK = 7 * 24 * 3600.0
Test = Callable[[Any], bool]


def configure(parser: Parser) -> None:
    parser.add_argument("what", metavar="TYPE", nargs="*", help="kinds and names")
    parser.add_argument(
        "--for",
        dest="goal",
        metavar="CONDITION",
        help="condition=NAME[=VALUE], delete, create or jsonpath='{PATH}'[=VALUE]",
    )
    parser.add_argument(
        "--timeout",
        metavar="DURATION",
        default="30s",
        help="give up after this (30s); 0 looks once, a negative one waits a week",
    )
    add_file_flags(parser)
    add_selector_flags(parser)
    parser.switch("--all", help="every object of these types in the namespace")
    parser.switch("-A", "--all-namespaces", help="objects of every namespace")


def run(args: Namespace) -> int:
    if not args.goal:
        raise UsageFailure("--for is required", "wait")
    if not args.what and not args.filename:
        raise UsageFailure("name the objects to wait for, or give -f", "wait")
    test = _goal(args.goal)
    seconds = seconds_flag("--timeout", args.timeout)
    deadline = time.monotonic() + (seconds if seconds >= 0 else _A_WEEK)
    with connect(args) as client:
        chosen = list(_chosen(args, client))
        if not chosen and test is not None:
            raise Failure("error: no matching resources found")
        for kind, namespace, name in chosen:
            try:
                met = _await(client, kind, namespace, name, test, args.goal.lower() == "create", deadline)
            except TimedOut:
                raise Failure(f"error: timed out waiting for the condition on {kind.plural}/{name}") from None
            if met:
                print(f"{object_word(kind, name)} condition met", flush=True)
    return 0


def _goal(text: str) -> Test | None:
    """What an object must satisfy; None stands for being gone."""
    word, _, rest = text.partition("=")
    if text.lower() == "delete":
        return None
    if text.lower() == "create":
        return lambda _obj: True
    if word == "condition" and rest:
        name, _, value = rest.partition("=")
        return lambda obj: _has_condition(obj, name, value or "true")
    if word == "jsonpath" and rest:
        return _path_goal(rest)
    raise Failure(
        f'error: unrecognized condition: "{text}"; it is condition=NAME[=VALUE], delete, create or jsonpath=...'
    )


def _has_condition(obj: Any, name: str, value: str) -> bool:
    """As kubectl: a condition of an older generation of the spec does not count."""
    status = getattr(obj, "status", None)
    for one in getattr(status, "conditions", ()):
        if one.type.lower() != name.lower():
            continue
        observed = getattr(one, "observedGeneration", 0) or getattr(status, "observedGeneration", 0)
        if observed and obj.metadata.generation > observed:
            return False
        return bool(one.status.lower() == value.lower())
    return False


def _path_goal(text: str) -> Test:
    brace = text.rfind("}")
    path, separator, value = (
        (text[: brace + 1], *text[brace + 1 :].partition("=")[1:]) if brace >= 0 else text.partition("=")
    )
    value = value[1:-1] if value[:1] in "'\"" and value[-1:] == value[:1] and len(value) > 1 else value
    try:
        jsonpath.find(path, {})
    except jsonpath.JSONPathError as error:
        raise Failure(f"error: --for: {error}") from None

    def test(obj: Any) -> bool:
        found = jsonpath.find(path, output.tree(obj))
        if not separator:
            return bool(found)
        return len(found) == 1 and jsonpath.text_of(found[0]) == value

    return test


def _chosen(args: Namespace, client: Client) -> Iterator[tuple[Kind, str, str]]:
    for item in documents(args.filename, args.recursive) if args.filename else ():
        if isinstance(item, Failure):
            raise item
        item.settle(client.namespace, args.namespace is not None)
        yield item.kind, item.obj.metadata.namespace, item.obj.metadata.name
    for target in targets(args.what) if args.what else ():
        if target.names:
            yield from ((target.kind, client.namespace, name) for name in target.names)
            continue
        if not (args.selector or args.field_selector or args.all):
            raise Failure("error: resource name, --all or a selector must be specified")
        query = Query("" if args.all_namespaces else client.namespace, args.selector or "", args.field_selector or "")
        for obj in client.list(target.kind, query).items:
            yield target.kind, obj.metadata.namespace, obj.metadata.name


def _await(
    client: Client, kind: Kind, namespace: str, name: str, test: Test | None, creation: bool, deadline: float
) -> bool:
    """Return when the object satisfies the test, or is gone where there is none; False where it never was there.

    TimedOut at the deadline.
    """
    query = Query(namespace, fields=f"metadata.name={name}")
    page = client.list(kind, query)
    if test is None and not page.items:
        return False
    if test is not None and any(test(obj) for obj in page.items):
        return True
    if test is not None and not page.items and not creation:
        client.get(kind, namespace, name)  # raises NotFound in the server's words
    for change in Watcher(client, kind, query, page.items, page.revision, deadline).changes():
        if change.type == "DELETED":
            if test is None:
                return True
        elif test is not None and test(change.object):
            return True
    raise AssertionError("a watch without an end has ended")
