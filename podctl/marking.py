"""What label and annotate share: `key=value` sets, `key-` removes, a value in use needs --overwrite."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from podctl.client import Client, Query, connect
from podctl.failure import Failure
from podctl.flags import Parser, add_selector_flags
from podctl.resources import Target, object_word, targets


def configure_marks(parser: Parser, noun: str) -> None:
    """Objects, changes, --overwrite, --all, -l."""
    parser.add_argument(
        "what", metavar="TYPE NAME KEY=VALUE", nargs="+", help=f"objects, then {noun}s: KEY=VALUE or KEY-"
    )
    parser.switch("--overwrite", help=f"replace {noun}s that have another value")
    parser.switch("--all", help="every object of this type in the namespace")
    add_selector_flags(parser)


def split(words: Sequence[str]) -> tuple[list[str], dict[str, str], list[str]]:
    """(words that name objects, what to set, keys to remove); Failure where a change is missing or doubled."""
    objects = [word for word in words if "=" not in word and not word.endswith("-")]
    changes = [word for word in words if word not in objects]
    setting = dict(word.split("=", 1) for word in changes if "=" in word)
    removing = [word[:-1] for word in changes if "=" not in word]
    if not changes:
        raise Failure("error: at least one change is required: KEY=VALUE or KEY-")
    both = sorted(set(setting) & set(removing))
    if both:
        raise Failure(f"error: cannot both set and remove {both[0]}")
    return objects, setting, removing


def mark(args: Namespace, field: str, done: str) -> int:
    """Change `labels` or `annotations` of each object and say what became of it (`labeled`, `annotated`)."""
    objects, setting, removing = split(args.what)

    def edit(obj: Any) -> bool:
        found = getattr(obj.metadata, field)
        before = dict(found)
        for key, value in setting.items():
            if before.get(key, value) != value and not args.overwrite:
                raise Failure(f"error: '{key}' already has a value ({before[key]}), and --overwrite is false")
            found[key] = value
        for key in removing:
            found.pop(key, None)
        return dict(found) != before

    with connect(args) as client:
        for target in targets(objects):
            for name in _names(args, client, target):
                _, changed = client.change(target.kind, client.namespace, name, edit)
                word = done if setting else f"un{done}"
                print(f"{object_word(target.kind, name)} {word if changed else f'not {done}'}", flush=True)
    return 0


def _names(args: Namespace, client: Client, target: Target) -> Sequence[str]:
    if target.names:
        return target.names
    if not (args.all or args.selector or args.field_selector):
        raise Failure("error: resource(s) were provided, but no name was specified")
    query = Query(client.namespace, args.selector or "", args.field_selector or "")
    return [obj.metadata.name for obj in client.list(target.kind, query).items]
