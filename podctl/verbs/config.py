"""podctl config: the contexts of the config file, and which one is used."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

from podctl.failure import Failure, UsageFailure
from podctl.flags import Parser
from podctl.tabwriter import Columns
from podplane import context
from podplane.errors import Invalid, NotFound

USAGE = "(current-context | get-contexts | use-context NAME | set-context NAME|--current | view) [flags]"
EXAMPLES = """
  podctl config get-contexts
  podctl config use-context local
  podctl config set-context --current -n shop
  podctl config view
"""


def configure(parser: Parser) -> None:
    actions = ("current-context", "get-contexts", "use-context", "set-context", "view")
    parser.add_argument("action", choices=actions)
    parser.add_argument("name", nargs="?", help="a context")
    parser.switch("--current", help="set-context: the one in use")
    parser.switch("--raw", help="view: show tokens")
    parser.switch("--no-headers", help="get-contexts: print no header line")
    parser.add_argument(
        "-o", "--output", choices=("name", "json", "yaml"), help="get-contexts: name; view: json or yaml"
    )


def run(args: Namespace) -> int:
    actions = {
        "current-context": _current,
        "get-contexts": _list,
        "use-context": _use,
        "set-context": _set,
        "view": _view,
    }
    try:
        return actions[args.action](args, _file(args.action))
    except (Invalid, NotFound) as error:
        raise Failure(f"error: {error}") from None


def _file(action: str) -> context.ContextFile:
    path = context.find()
    if path is None or (not path.exists() and action == "set-context"):
        return context.ContextFile(path or context.default_path())
    return context.read(path)


def _current(_args: Namespace, file: context.ContextFile) -> int:
    if not file.current:
        raise Failure("error: current-context is not set")
    print(file.current)
    return 0


def _list(args: Namespace, file: context.ContextFile) -> int:
    if args.name and args.name not in file.contexts:
        raise Failure(f"error: context {args.name} not found")
    chosen = [one for one in file.contexts.values() if args.name in (None, one.name)]
    if args.output == "name":
        for one in chosen:
            print(one.name)
        return 0
    rows = [] if args.no_headers else [["CURRENT", "NAME", "SERVER", "NAMESPACE"]]
    rows += [["*" if one.name == file.current else "", one.name, one.server, one.namespace] for one in chosen]
    for line in Columns().lines(rows):
        print(line)
    return 0


def _use(args: Namespace, file: context.ContextFile) -> int:
    if not args.name:
        raise UsageFailure("use-context needs the name of a context", "config")
    if args.name not in file.contexts:
        raise Failure(f'error: no context exists with the name: "{args.name}"')
    context.write(replace(file, current=args.name))
    print(f'Switched to context "{args.name}".')
    return 0


def _set(args: Namespace, file: context.ContextFile) -> int:
    name = file.current if args.current else args.name
    if not name or (args.current and args.name):
        raise UsageFailure("set-context needs the name of a context, or --current", "config")
    before = file.contexts.get(name)
    changed = before or context.Context(name)
    given = {
        "server": args.server,
        "certificate_authority": args.certificate_authority,
        "token_file": args.token_file,
        "namespace": args.namespace,
    }
    changed = replace(changed, **{key: value for key, value in given.items() if value})
    context.write(context.with_context(file, changed, use=not file.current))
    print(f'Context "{name}" {"modified" if before else "created"}.')
    return 0


def _view(args: Namespace, file: context.ContextFile) -> int:
    from podplane.manifest import printing

    if args.output == "name":
        raise UsageFailure("view prints json or yaml", "config")
    data = context.document(file, secrets=args.raw)
    print(printing.dump_json(data) if args.output == "json" else printing.dump_yaml(data).rstrip("\n"))
    return 0
