"""The manifests that -f names: files, directories and stdin, document by document.

Owns finding and reading them; what a field may hold is podplane.manifest's and the server's to judge. A document
that cannot be read is reported and does not keep the others from being used.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from podctl.failure import Failure
from podplane.errors import Invalid
from podplane.kinds import Kind
from podplane.manifest.reading import Document, Problem, read_documents

_SUFFIXES = (".yaml", ".yml", ".json")
# At the start of a line `---` always begins a document, in a block scalar too.
_SEPARATOR = re.compile(r"^---(?:[ \t].*)?$", re.MULTILINE)
_COMMENTS = re.compile(r"^[ \t]*#.*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object of a file, and where it stands (document and line count from 1)."""

    obj: Any
    kind: Kind
    source: str
    document: int
    line: int

    @property
    def place(self) -> str:
        return f"document {self.document}, line {self.line}"

    def settle(self, namespace: str, demanded: bool) -> None:
        """Give the object the namespace of this request; Failure where `-n` demanded another than it names."""
        metadata = self.obj.metadata
        if not self.kind.namespaced:
            return
        if demanded and metadata.namespace and metadata.namespace != namespace:
            raise Failure(
                f'error: the namespace from the provided object "{metadata.namespace}" does not match the namespace '
                f"\"{namespace}\". You must pass '--namespace={metadata.namespace}' to perform this operation."
            )
        if not metadata.namespace:
            metadata.namespace = namespace


def documents(names: Sequence[str], recursive: bool = False) -> Iterator[Manifest | Failure]:
    """Every object of these files in order; a Failure, to be printed, for each part that cannot be read."""
    if not names:
        raise Failure("error: must specify one of -f")
    # Every path is looked up before the first object is given out: a misspelt one must not leave half of them applied.
    for path in [path for name in names for path in _sources(name, recursive)]:
        source = "STDIN" if path is None else str(path)
        for found in _read(_bytes(path), source):
            yield found if isinstance(found, Failure) else _manifest(found, source)


def _manifest(document: Document, source: str) -> Manifest:
    return Manifest(document.obj, document.kind, source, document.index, document.line)


def _sources(name: str, recursive: bool) -> list[Path | None]:
    """The files of one -f; None stands for stdin."""
    if name == "-":
        return [None]
    if name.startswith(("http://", "https://")):
        raise Failure(f"error: {name}: manifests are read from files, directories and stdin, not from the network")
    return list(_files(Path(name), recursive))


def _bytes(path: Path | None) -> bytes:
    if path is None:
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except OSError as error:
        raise Failure(f'error: cannot read "{path}": {error.strerror}') from None


def _files(path: Path, recursive: bool) -> list[Path]:
    if not path.exists():
        raise Failure(f'error: the path "{path}" does not exist')
    if not path.is_dir():
        return [path]
    walk = path.rglob("*") if recursive else path.iterdir()
    found = sorted(one for one in walk if one.suffix in _SUFFIXES and one.is_file())
    if not found:
        kinds = ", ".join(_SUFFIXES)
        raise Failure(f"error: error reading [{path}]: recognized file extensions are [{kinds}]; none is there")
    return found


def _read(text: bytes, source: str) -> Iterator[Document | Failure]:
    try:
        found = read_documents(text, source)
    except Invalid as error:
        yield from _one_by_one(text, source, error)
        return
    if not found:
        yield Failure(f"error: no objects found: {source} is empty")
    yield from found


def _one_by_one(text: bytes, source: str, whole: Invalid) -> Iterator[Document | Failure]:
    """Read again, each document for itself; blank lines stand for those before, so that line numbers stay true."""
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError:
        yield _failure(source, whole)
        return
    starts = [0, *(match.start() for match in _SEPARATOR.finditer(decoded) if match.start())]
    ends = [*starts[1:], len(decoded)]
    if len(starts) == 1:
        yield _failure(source, whole)
        return
    index = 0
    for start, end in zip(starts, ends, strict=True):
        chunk = decoded[start:end]
        if start == 0 and not _COMMENTS.sub("", chunk).strip():
            continue  # what stands before the first separator is a document only where it holds something
        index += 1
        try:
            found = read_documents("\n" * decoded.count("\n", 0, start) + chunk, source)
        except Invalid as error:
            yield _failure(source, error, index)
            continue
        yield from (replace(document, index=index) for document in found)


def _failure(source: str, error: Invalid, index: int = 0) -> Failure:
    lines = [
        str(replace(problem, document=index) if index and isinstance(problem, Problem) else problem)
        for problem in error.fields
    ]
    return Failure("\n".join(f"error: {line}" for line in lines) or f"error: {source}: {error}")
