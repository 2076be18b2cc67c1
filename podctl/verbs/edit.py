"""podctl edit: an object in the editor, and what was changed back to the server."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

from podctl.client import Client, connect
from podctl.errors import wording
from podctl.failure import Failure
from podctl.flags import Parser
from podctl.output import tree
from podctl.resources import object_word, targets
from podplane.errors import Invalid, PodplaneError
from podplane.kinds import Kind
from podplane.manifest import printing
from podplane.manifest.reading import read_documents
from podplane.merge import three_way

USAGE = "(TYPE NAME... | TYPE/NAME...)"
EXAMPLES = """
  podctl edit deployment/web
  EDITOR='code --wait' podctl edit configmap settings
"""
_HEAD = """\
# Please edit the object below. Lines beginning with a '#' will be ignored,
# and an empty file will abort the edit. If an error occurs while saving this file will be
# reopened with the relevant failures.
#
"""


def configure(parser: Parser) -> None:
    parser.add_argument("what", metavar="TYPE NAME", nargs="+", help="objects")


def run(args: Namespace) -> int:
    with connect(args) as client:
        for target in targets(args.what):
            if not target.names:
                raise Failure("error: resource(s) were provided, but no name was specified")
            for name in target.names:
                _edit(client, target.kind, name)
    return 0


def _edit(client: Client, kind: Kind, name: str) -> None:
    original = client.get(kind, client.namespace, name)
    directory = tempfile.mkdtemp(prefix="podctl-edit-")  # 0700: it may be a secret
    path = Path(directory) / f"{name}.yaml"
    path.write_text(_HEAD + printing.dump_yaml(tree(original)))
    given = last = path.read_text()
    while True:
        _open_editor(path)
        text = path.read_text()
        if not _content(text):
            _forget(path)
            raise Failure("error: Edit cancelled, saved file was empty")
        if _content(text) == _content(given):
            _forget(path)
            print("Edit cancelled, no changes made.", file=sys.stderr)
            return
        if last != given and _content(text) == _content(last):
            raise Failure(f"error: Edit cancelled, no valid changes were saved; they are in {path}")
        try:
            edited = _read(text, kind, name, path)
            client.change(kind, client.namespace, name, partial(_merge, original, edited))
        except (PodplaneError, Failure) as error:
            words = wording(error) or str(error)
            last = "".join(f"# {line}\n" for line in words.splitlines()) + _HEAD + _content(text) + "\n"
            path.write_text(last)
            print(words, file=sys.stderr)
            continue
        _forget(path)
        print(f"{object_word(kind, name)} edited")
        return


def _merge(original: Any, edited: Any, live: Any) -> bool:
    """Put what was edited into the object as it is by now: controllers write to it while an editor is open."""
    revision = live.metadata.resourceVersion
    live.CopyFrom(three_way(original, live, edited))
    live.metadata.resourceVersion = revision
    return True


def _content(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("#")).strip()


def _read(text: str, kind: Kind, name: str, path: Path) -> Any:
    try:
        found = read_documents(text, str(path))
    except Invalid as error:
        raise Failure("\n".join(f"error: {problem}" for problem in error.fields) or f"error: {error}") from None
    obj: Any = found[0].obj if len(found) == 1 else None
    if obj is None or found[0].kind is not kind or obj.metadata.name != name:
        raise Failure(f"error: the file must hold {object_word(kind, name)}, and nothing else")
    return obj


def _open_editor(path: Path) -> None:
    command = shlex.split(os.environ.get("KUBE_EDITOR") or os.environ.get("EDITOR") or "vi")
    try:
        done = subprocess.run([*command, str(path)], check=False)
    except OSError as error:
        raise Failure(f"error: unable to launch the editor {command[0]!r}: {error.strerror}") from None
    if done.returncode:
        raise Failure(f"error: there was a problem with the editor {command[0]!r}: exit status {done.returncode}")


def _forget(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()
