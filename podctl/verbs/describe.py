"""podctl describe: objects in detail, with what belongs to them and their events."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import Any

from podctl.client import Client, Query, connect
from podctl.describe import describe
from podctl.errors import wording
from podctl.failure import Failure
from podctl.flags import Parser, add_file_flags
from podctl.manifests import documents
from podctl.resources import Target, targets
from podctl.tables import selector_text
from podctl.verbs.events import by_time
from podplane.errors import Forbidden, NotFound
from podplane.kinds import DEPLOYMENT, ENDPOINT_SLICE, EVENT, NODE, POD, REPLICA_SET, SERVICE, Kind

USAGE = "(TYPE [NAME_PREFIX...] | TYPE/NAME | TYPE -l SELECTOR | -f FILE) [flags]"
EXAMPLES = """
  podctl describe pod web
  podctl describe node/node-1
  podctl describe pods -l app=web
"""


def configure(parser: Parser) -> None:
    parser.add_argument("what", metavar="TYPE", nargs="*", help="kinds and names; a name may be the beginning of names")
    parser.add_argument("-l", "--selector", metavar="SELECTOR", help="every object with these labels")
    parser.switch("-A", "--all-namespaces", help="objects of every namespace")
    parser.switch("--show-events", default=True, help="end with the object's events (true)")
    add_file_flags(parser)


def run(args: Namespace) -> int:
    failures: list[str] = []
    printed = 0
    with connect(args) as client:
        for target in _wanted(args):
            for kind, obj in _objects(args, client, target, failures):
                if printed:
                    print("\n")
                related = list(_related(client, kind, obj))
                events = _events(client, kind, obj) if args.show_events else None
                print(describe(kind.name, obj, related, events, time.time()), flush=True)
                printed += 1
        if not printed and not failures:
            where = "" if args.all_namespaces else f" in {client.namespace} namespace."
            print(f"No resources found{where}", file=sys.stderr)
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def _wanted(args: Namespace) -> list[Target]:
    if not args.filename:
        return targets(args.what)
    found = []
    for item in documents(args.filename, args.recursive):
        if isinstance(item, Failure):
            raise item
        found.append(Target(item.kind, (item.obj.metadata.name,)))
    return found


def _objects(args: Namespace, client: Client, target: Target, failures: list[str]) -> Iterator[tuple[Kind, Any]]:
    kind = target.kind
    if not target.names:
        query = Query("" if args.all_namespaces else client.namespace, args.selector or "")
        yield from ((kind, obj) for obj in client.list(kind, query).items)
        return
    for name in target.names:
        try:
            yield kind, client.get(kind, client.namespace, name)
        except NotFound as error:
            alike = [
                obj for obj in client.list(kind, Query(client.namespace)).items if obj.metadata.name.startswith(name)
            ]
            if not alike:
                failures.append(wording(error) or str(error))
            yield from ((kind, obj) for obj in alike)


def _related(client: Client, kind: Kind, obj: Any) -> Sequence[Any]:
    namespace = obj.metadata.namespace
    if kind is NODE:
        return client.list(POD, Query(fields=f"spec.nodeName={obj.metadata.name}")).items
    if kind is SERVICE:
        return client.list(ENDPOINT_SLICE, Query(namespace, f"kubernetes.io/service-name={obj.metadata.name}")).items
    if kind in (DEPLOYMENT, REPLICA_SET):
        dependent = REPLICA_SET if kind is DEPLOYMENT else POD
        labels = selector_text(obj.spec.selector).replace("<none>", "")
        found = client.list(dependent, Query(namespace, labels)).items
        return [one for one in found if any(owner.uid == obj.metadata.uid for owner in one.metadata.ownerReferences)]
    return ()


def _events(client: Client, kind: Kind, obj: Any) -> list[Any] | None:
    """The object's events, by time; None where the caller may not read events."""
    fields = f"involvedObject.kind={kind.name},involvedObject.name={obj.metadata.name}"
    try:
        page = client.list(EVENT, Query(obj.metadata.namespace, fields=fields))
    except Forbidden:
        return None
    same = [one for one in page.items if one.involvedObject.uid in ("", obj.metadata.uid)]
    return by_time(same)
