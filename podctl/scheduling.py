"""What cordon and uncordon share: spec.unschedulable of nodes."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from podctl.client import Client, Query, connect
from podctl.failure import Failure
from podctl.flags import Parser
from podctl.resources import object_word
from podplane.kinds import NODE


def configure_nodes(parser: Parser) -> None:
    """Node names or -l."""
    parser.add_argument("nodes", metavar="NODE", nargs="*", help="names of nodes")
    parser.add_argument("-l", "--selector", metavar="SELECTOR", help="every node with these labels")


def chosen_nodes(args: Namespace, client: Client) -> list[str]:
    """The nodes that are named or selected."""
    if bool(args.nodes) == bool(args.selector):
        raise Failure("error: name at least one node, or give a selector with -l, but not both")
    if args.selector:
        return [node.metadata.name for node in client.list(NODE, Query(labels=args.selector)).items]
    return [name.removeprefix("node/").removeprefix("nodes/") for name in args.nodes]


def cordon(client: Client, name: str, *, unschedulable: bool) -> bool:
    """Set or remove a node's mark; whether that changed anything."""

    def edit(node: Any) -> bool:
        if node.spec.unschedulable == unschedulable:
            return False
        if unschedulable:
            node.spec.unschedulable = True
        else:
            node.spec.ClearField("unschedulable")
        return True

    return client.change(NODE, "", name, edit)[1]


def mark(args: Namespace, *, unschedulable: bool) -> int:
    """Set the mark on each node and say what became of it."""
    word = "cordoned" if unschedulable else "uncordoned"
    with connect(args) as client:
        for name in chosen_nodes(args, client):
            changed = cordon(client, name, unschedulable=unschedulable)
            print(f"{object_word(NODE, name)} {word if changed else f'already {word}'}", flush=True)
    return 0
