"""podctl diff: what an apply would change, by a dry run on the server. Exit status 1 where anything would."""

from __future__ import annotations

import difflib
import sys
from argparse import Namespace
from typing import Any

from podctl.client import Client, connect
from podctl.errors import wording
from podctl.failure import Failure
from podctl.flags import Parser, add_file_flags
from podctl.manifests import Manifest, documents
from podctl.output import tree
from podplane.errors import NotFound, PodplaneError
from podplane.kinds import SECRET
from podplane.manifest import printing

USAGE = "-f FILE [-f FILE ...] [-R]"
EXAMPLES = """
  podctl diff -f web.yaml
  generate | podctl diff -f -
"""
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_TROUBLE = 2
_TRIES = 5


def configure(parser: Parser) -> None:
    add_file_flags(parser)


def run(args: Namespace) -> int:
    status = 0
    with connect(args) as client:
        client.rehearse()
        for item in documents(args.filename, args.recursive):
            try:
                if isinstance(item, Failure):
                    raise item
                item.settle(client.namespace, args.namespace is not None)
                lines = _diff(client, item)
            except (Failure, PodplaneError) as error:
                print(wording(error), file=sys.stderr)
                status = _TROUBLE
                continue
            print("".join(lines), end="", flush=True)
            status = max(status, 1 if lines else 0)
    return status


def _diff(client: Client, item: Manifest) -> list[str]:
    metadata = item.obj.metadata
    for _ in range(_TRIES):
        try:
            live = client.get(item.kind, metadata.namespace, metadata.name)
        except NotFound:
            live = None
        merged = client.write("Apply", item.obj)
        # A dry run answers with the revision that it started from: another one was written in between.
        if live is None or live.metadata.resourceVersion == merged.metadata.resourceVersion:
            break
    name = ".".join(
        word for word in (*item.kind.api_version.split("/"), item.kind.name, metadata.namespace, metadata.name) if word
    )
    before, after = _texts(live, merged, item)
    return list(difflib.unified_diff(before, after, f"LIVE/{name}", f"MERGED/{name}"))


def _texts(live: Any, merged: Any, item: Manifest) -> tuple[list[str], list[str]]:
    """Both as lines of YAML; a secret's values are hidden, and those that change said to differ."""
    before, after = (tree(live) if live is not None else {}), tree(merged)
    for data in (before, after):
        # The manifest itself, on one line: noise, and in a secret's case its values.
        data.get("metadata", {}).get("annotations", {}).pop(_LAST_APPLIED, None)
    if item.kind is SECRET:
        old, new = before.get("data") or {}, after.get("data") or {}
        for key in {*old, *new}:
            differs = key in old and key in new and old[key] != new[key]
            for data, word in ((old, " (before)"), (new, " (after)")):
                if key in data:
                    data[key] = f"***{word if differs else ''}"
    texts = [printing.dump_yaml(one).splitlines(keepends=True) if one else [] for one in (before, after)]
    return texts[0], texts[1]
