"""podctl taint: sets and removes taints of nodes."""

from __future__ import annotations

from argparse import Namespace
from typing import Any, NamedTuple

from podctl.client import Query, connect
from podctl.failure import Failure
from podctl.flags import Parser
from podctl.resources import kind_named, object_word
from podplane.kinds import NODE
from podplane.v1 import node_pb2

USAGE = "nodes (NAME... | -l SELECTOR | --all) KEY[=VALUE]:EFFECT... KEY[:EFFECT]-..."
EXAMPLES = """
  podctl taint nodes node-1 dedicated=batch:NoSchedule
  podctl taint nodes node-1 dedicated:NoSchedule-
  podctl taint nodes node-1 dedicated-
"""
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


class _Change(NamedTuple):
    key: str
    value: str
    effect: str
    removes: bool


def configure(parser: Parser) -> None:
    parser.add_argument("what", metavar="nodes NAME TAINT", nargs="+", help="nodes, then taints")
    parser.switch("--overwrite", help="replace a taint of the same key and effect")
    parser.switch("--all", help="every node")
    parser.add_argument("-l", "--selector", metavar="SELECTOR", help="every node with these labels")


def run(args: Namespace) -> int:
    if kind_named(args.what[0]) is not NODE:
        raise Failure("error: only nodes have taints: podctl taint nodes NAME KEY=VALUE:EFFECT")
    words = args.what[1:]
    changes = [_parse(word) for word in words if ":" in word or "=" in word or word.endswith("-")]
    names = [word for word in words if not (":" in word or "=" in word or word.endswith("-"))]
    if not changes:
        raise Failure("error: at least one taint update is required")

    def edit(node: Any) -> bool:
        before = [one.SerializeToString() for one in node.spec.taints]
        for change in changes:
            _change(node, change, args.overwrite)
        return before != [one.SerializeToString() for one in node.spec.taints]

    with connect(args) as client:
        if not names:
            if not (args.all or args.selector):
                raise Failure("error: at least one resource name must be specified since 'all' parameter is not set")
            names = [node.metadata.name for node in client.list(NODE, Query(labels=args.selector or "")).items]
        for name in names:
            _, changed = client.change(NODE, "", name, edit)
            word = "untainted" if all(change.removes for change in changes) else "tainted"
            print(f"{object_word(NODE, name)} {word if changed else f'not {word}'}", flush=True)
    return 0


def _parse(text: str) -> _Change:
    removes = text.endswith("-")
    head, _, effect = text.removesuffix("-").partition(":")
    key, _, value = head.partition("=")
    if not key or (effect and effect not in _EFFECTS) or (not effect and not removes):
        raise Failure(f"error: invalid taint spec: {text}: it is KEY[=VALUE]:EFFECT, effects are {', '.join(_EFFECTS)}")
    return _Change(key, value, effect, removes)


def _change(node: Any, change: _Change, overwrite: bool) -> None:
    same = [one for one in node.spec.taints if one.key == change.key and change.effect in ("", one.effect)]
    if change.removes:
        if not same:
            raise Failure(f'error: taint "{change.key}{":" if change.effect else ""}{change.effect}" not found')
        for one in same:
            node.spec.taints.remove(one)
        return
    if any(one.value != change.value for one in same) and not overwrite:
        raise Failure(
            f"error: node {node.metadata.name} already has {change.key} taint(s) with same effect(s) and "
            "--overwrite is false"
        )
    for one in same:
        node.spec.taints.remove(one)
    node.spec.taints.append(node_pb2.Taint(key=change.key, value=change.value, effect=change.effect))
