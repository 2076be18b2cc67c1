"""What apply and create share: each manifest is sent, its outcome printed, and a failure does not stop the rest."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from podctl import output
from podctl.client import Client
from podctl.errors import Disconnected, wording
from podctl.failure import Failure
from podctl.flags import Parser
from podctl.manifests import Manifest, documents
from podctl.resources import object_word
from podplane.errors import Invalid, PodplaneError, Unauthenticated
from podplane.kinds import Kind, kind_of

FORMATS = ("name", "json", "yaml", "jsonpath", "jsonpath-as-json")


def add_result_flags(parser: Parser) -> None:
    """--dry-run and -o."""
    parser.add_argument(
        "--dry-run",
        choices=("none", "client", "server"),
        default="none",
        help="client: check the manifests and print, send nothing; server: have it checked and defaulted, not stored",
    )
    parser.add_argument("-o", "--output", metavar="FORMAT", help="print the objects: name, yaml, json or jsonpath=")


def submit_all(
    args: Namespace,
    client: Client,
    send: Callable[[Client, Manifest], tuple[Any, str]],
    doing: str,
    dry_word: str = "created",
) -> int:
    """Send every document of -f; 1 where any failed. `send` gives the object and the word for what became of it."""
    reporter = Reporter(args)
    failed = False
    for item in documents(args.filename, args.recursive):
        try:
            if isinstance(item, Failure):
                raise item
            item.settle(client.namespace, args.namespace is not None)
            obj, word = (item.obj, dry_word) if args.dry_run == "client" else send(client, item)
            reporter.report(item.kind, obj, word)
        except (Disconnected, Unauthenticated):
            raise  # the next document would fare no better
        except (Failure, PodplaneError) as error:
            failed = True
            print(_message(error, item, doing), file=sys.stderr)
    return 1 if failed else 0


def create(client: Client, args: Namespace, obj: Any) -> Any:
    """Create an object that the command line describes; with --dry-run=client only what would be sent."""
    kind = kind_of(obj)
    Manifest(obj, kind, "the command line", 1, 1).settle(client.namespace, args.namespace is not None)
    return obj if args.dry_run == "client" else client.write("Create", obj)


class Reporter:
    """Says what became of each object: `pod/web created`, or the object in the format asked for."""

    def __init__(self, args: Namespace) -> None:
        self._form = output.parse_format(args.output, FORMATS)
        self._documents = output.DocumentPrinter(self._form)
        self._suffix = {"client": " (dry run)", "server": " (server dry run)"}.get(args.dry_run, "")

    def report(self, kind: Kind, obj: Any, word: str) -> None:
        if self._form.name:
            self._documents.print(obj)
        else:
            print(f"{object_word(kind, obj.metadata.name)} {word}{self._suffix}", flush=True)


def _message(error: Exception, item: Manifest | Failure, doing: str) -> str:
    if isinstance(item, Failure) or isinstance(error, Failure):
        return wording(error) or str(error)
    if isinstance(error, Invalid):
        return f"{wording(error)} ({item.source}: {item.place})"
    return wording(error, f'error when {doing} "{item.source}" ({item.place}): ') or str(error)
