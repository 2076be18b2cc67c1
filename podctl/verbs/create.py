"""podctl create: objects from manifests, and namespaces, config maps and secrets from the command line."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from podctl.client import Client, connect
from podctl.failure import Failure, UsageFailure
from podctl.flags import Parser, add_file_flags
from podctl.manifests import Manifest
from podctl.submitting import Reporter, add_result_flags, create, submit_all
from podplane.kinds import kind_of
from podplane.v1 import config_pb2, meta_pb2, namespace_pb2

USAGE = "(-f FILE | namespace NAME | configmap NAME | secret generic NAME) [flags]"
EXAMPLES = """
  podctl create -f web.yaml
  podctl create namespace shop
  podctl create configmap settings --from-literal=colour=blue --from-file=app.conf
  podctl create secret generic password --from-file=password=/run/secrets/password
"""


def configure(parser: Parser) -> None:
    parser.add_argument(
        "what", metavar="TYPE NAME", nargs="*", help="namespace, configmap or secret generic, and a name"
    )
    add_file_flags(parser)
    parser.add_argument(
        "--from-literal",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="a key of the config map or secret; a secret's value is better read from a file",
    )
    parser.add_argument(
        "--from-file", metavar="[KEY=]PATH", action="append", default=[], help="a file, or every file of a directory"
    )
    parser.add_argument("--type", default=None, help="the secret's type (Opaque)")
    add_result_flags(parser)


def run(args: Namespace) -> int:
    if args.filename and args.what:
        raise UsageFailure(f"-f takes no further arguments, only {' '.join(args.what)} was given as well", "create")
    made = None if args.filename else _made(args)
    reporter = Reporter(args)
    with connect(args) as client:
        if made is None:
            return submit_all(args, client, _create, "creating")
        reporter.report(kind_of(made), create(client, args, made), "created")
    return 0


def _create(client: Client, item: Manifest) -> tuple[Any, str]:
    return client.write("Create", item.obj), "created"


def _made(args: Namespace) -> Any:
    """The object that the command line describes."""
    makers: dict[str, Callable[[str, Namespace], Any]] = {
        "namespace": _namespace,
        "ns": _namespace,
        "configmap": _config_map,
        "cm": _config_map,
        "secret": _secret,
    }
    words = list(args.what)
    maker = makers.get(words[0]) if words else None
    if maker is None:
        raise UsageFailure("give -f FILE, or one of: namespace, configmap, secret generic", "create")
    if maker is _secret:
        if words[1:2] != ["generic"]:
            raise UsageFailure("only generic secrets are made here: podctl create secret generic NAME", "create")
        del words[1]
    if len(words) != 2:
        raise UsageFailure(f"exactly one NAME is required, received {len(words) - 1}", "create")
    if args.type is not None and maker is not _secret:
        raise UsageFailure("--type is for secrets", "create")
    return maker(words[1], args)


def _namespace(name: str, args: Namespace) -> Any:
    if args.from_literal or args.from_file:
        raise UsageFailure("a namespace has no data", "create")
    return namespace_pb2.Namespace(apiVersion="v1", kind="Namespace", metadata=meta_pb2.ObjectMeta(name=name))


def _config_map(name: str, args: Namespace) -> Any:
    made = config_pb2.ConfigMap(apiVersion="v1", kind="ConfigMap", metadata=meta_pb2.ObjectMeta(name=name))
    for key, value in _data(args).items():
        try:
            made.data[key] = value.decode()
        except UnicodeDecodeError:
            made.binaryData[key] = value
    return made


def _secret(name: str, args: Namespace) -> Any:
    made = config_pb2.Secret(
        apiVersion="v1", kind="Secret", metadata=meta_pb2.ObjectMeta(name=name), type=args.type or "Opaque"
    )
    for key, value in _data(args).items():
        made.data[key] = value
    return made


def _data(args: Namespace) -> dict[str, bytes]:
    pairs: list[tuple[str, bytes]] = []
    for literal in args.from_literal:
        key, separator, value = literal.partition("=")
        if not separator or not key:
            raise Failure(f"error: invalid literal source {literal}, expected key=value")
        pairs.append((key, value.encode()))
    for source in args.from_file:
        pairs += _from_file(source)
    found: dict[str, bytes] = {}
    for key, content in pairs:
        if key in found:
            raise Failure(f'error: cannot add key "{key}", another key by that name already exists')
        found[key] = content
    return found


def _from_file(source: str) -> list[tuple[str, bytes]]:
    key, separator, name = source.rpartition("=")
    path = Path(name)
    try:
        if path.is_dir():
            if separator:
                raise Failure("error: cannot give a key name for a directory path")
            return [(one.name, one.read_bytes()) for one in sorted(path.iterdir()) if one.is_file()]
        return [(key or path.name, path.read_bytes())]
    except OSError as error:
        raise Failure(f"error: cannot read {path}: {error.strerror}") from None
