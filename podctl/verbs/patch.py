"""podctl patch: changes fields of objects: reads, patches here, writes with the revision that was read."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from podctl import output, patching
from podctl.client import connect
from podctl.failure import Failure, UsageFailure
from podctl.flags import Parser
from podctl.resources import object_word, targets
from podplane.errors import Invalid
from podplane.manifest.reading import from_tree

USAGE = "(TYPE NAME | TYPE/NAME) (-p PATCH | --patch-file FILE) [--type=strategic|merge|json]"
EXAMPLES = """
  podctl patch deployment web -p '{"spec":{"replicas":3}}'
  podctl patch pod web --type=merge -p '{"metadata":{"labels":{"tier":null}}}'
  podctl patch deploy/web --type=json -p '[{"op":"replace","path":"/spec/replicas","value":2}]'
"""


def configure(parser: Parser) -> None:
    parser.add_argument("what", metavar="TYPE", nargs="+", help="kind and names")
    parser.add_argument("-p", "--patch", metavar="PATCH", help="the patch, JSON or YAML")
    parser.add_argument("--patch-file", metavar="FILE", help="a file that holds the patch")
    parser.add_argument("--type", choices=("strategic", "merge", "json"), default="strategic", help="strategic")
    parser.add_argument("--subresource", choices=("status",), help="patch the status, and nothing else")
    parser.add_argument("-o", "--output", metavar="FORMAT", help="print the object: name, yaml, json or jsonpath=")


def run(args: Namespace) -> int:
    if (args.patch is None) == (args.patch_file is None):
        raise UsageFailure("must specify one of --patch or --patch-file", "patch")
    form = output.parse_format(args.output, ("name", "json", "yaml", "jsonpath"))
    patch = _read(args)

    def edit(obj: Any) -> bool:
        before = output.tree(obj)
        after = _patched(args.type, before, patch, obj)
        if after == before:
            return False
        try:
            obj.CopyFrom(from_tree(after, type(obj)))
        except Invalid as error:
            raise Failure(f"error: the patch does not fit: {error}") from None
        return True

    verb = "UpdateStatus" if args.subresource else "Update"
    with connect(args) as client:
        for target in targets(args.what):
            if not target.names:
                raise Failure("error: resource(s) were provided, but no name was specified")
            for name in target.names:
                obj, changed = client.change(target.kind, client.namespace, name, edit, verb)
                if form.name:
                    output.print_one(obj, form)
                else:
                    print(f"{object_word(target.kind, name)} patched{'' if changed else ' (no change)'}", flush=True)
    return 0


def _read(args: Namespace) -> Any:
    import yaml

    try:
        text = args.patch if args.patch is not None else Path(args.patch_file).read_text()
        return yaml.safe_load(text)
    except OSError as error:
        raise Failure(f"error: cannot read {args.patch_file}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise Failure(f"error: unable to parse the patch: {' '.join(str(error).split())}") from None


def _patched(kind: str, before: dict[str, Any], patch: Any, obj: Any) -> Any:
    try:
        if kind == "json":
            return patching.json_patch(before, patch)
        if not isinstance(patch, dict):
            raise patching.PatchError(f"a {kind} patch is an object")
        if kind == "merge":
            return patching.merge(before, patch)
        return patching.strategic(before, patch, obj.DESCRIPTOR)
    except patching.PatchError as error:
        raise Failure(f"error: cannot apply the patch: {error}") from None
