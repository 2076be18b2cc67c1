"""podctl scale: sets the number of replicas of deployments and replica sets."""

from __future__ import annotations

from argparse import Namespace

from podctl.client import Query, connect
from podctl.failure import Failure, UsageFailure
from podctl.flags import Parser
from podctl.resources import object_word, targets

USAGE = "(TYPE NAME... | TYPE/NAME...) --replicas=N [--current-replicas=N]"
EXAMPLES = """
  podctl scale deployment/web --replicas=3
  podctl scale deployment web --current-replicas=3 --replicas=0
"""


def configure(parser: Parser) -> None:
    parser.add_argument("what", metavar="TYPE", nargs="+", help="deployments or replica sets")
    parser.add_argument("--replicas", metavar="N", type=int, help="how many there are to be")
    parser.add_argument("--current-replicas", metavar="N", type=int, help="only where there are that many now")
    parser.add_argument("--resource-version", metavar="N", help="only where the object has this resourceVersion")
    parser.add_argument("-l", "--selector", metavar="SELECTOR", help="every one with these labels")
    parser.switch("--all", help="every one of this type in the namespace")


def run(args: Namespace) -> int:
    if args.replicas is None or args.replicas < 0:
        raise UsageFailure(
            "The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0", "scale"
        )
    with connect(args) as client:
        for target in targets(args.what):
            if "Scale" not in _methods(target.kind.name):
                raise Failure(f"error: cannot scale {target.kind.plural}: they have no replicas")
            names = target.names
            if not names:
                if not args.selector and not args.all:
                    raise Failure("error: resource(s) were provided, but no name was specified")
                page = client.list(target.kind, Query(client.namespace, args.selector or ""))
                names = tuple(obj.metadata.name for obj in page.items)
            for name in names:
                if args.current_replicas is not None:
                    _expect(client.get(target.kind, client.namespace, name).spec.replicas, args.current_replicas)
                client.scale(target.kind, client.namespace, name, args.replicas, args.resource_version)
                print(f"{object_word(target.kind, name)} scaled", flush=True)
    return 0


def _methods(kind_name: str) -> set[str]:
    from podplane.v1 import services_pb2

    for service in services_pb2.DESCRIPTOR.services_by_name.values():
        if service.methods_by_name["Get"].output_type.name == kind_name:
            return set(service.methods_by_name)
    return set()


def _expect(found: int, wanted: int) -> None:
    if found != wanted:
        raise Failure(f"error: Expected replicas to be {wanted}, was {found}")
