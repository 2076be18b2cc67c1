"""Manifests from files, directories and stdin, document by document, with true places."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from podctl.failure import Failure
from podctl.manifests import Manifest, documents

_GOOD = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"
_BAD = "apiVersion: v1\nkind: Namespace\nmetadata: {nam: shop}\n"


def _found(*names: Path, recursive: bool = False) -> list[str]:
    return [
        item.message if isinstance(item, Failure) else f"{item.obj.metadata.name} {item.place}"
        for item in documents([str(name) for name in names], recursive)
    ]


def test_bad_document_keeps_its_place_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(f"# comment\n---\n{_GOOD}---\n{_BAD}---\n\n---\n{_GOOD.replace('shop', 'last')}")
    first, second, third = _found(path)
    assert first == "shop document 1, line 3"
    assert second.startswith(f"error: {path}: document 2, line 9: metadata.nam: unknown field")
    assert third == "last document 4, line 13"


def test_separator_within_a_block_of_text_is_no_separator_when_indented(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  a: |\n    x\n    ---\n    y\n"
    path.write_text(f"{text}---\n{_BAD}")
    first, second = _found(path)
    assert first.startswith("c document 1")
    assert "document 2, line 12" in second


def test_syntax_error_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(f"{_GOOD}---\nkind: [unclosed\n")
    first, second = _found(path)
    assert first.startswith("shop")
    assert str(path) in second
    assert "line" in second


def test_missing_path_stops_everything_before_it_starts(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(_GOOD)
    with pytest.raises(Failure, match="does not exist"):
        next(iter(documents([str(path), str(tmp_path / "none.yaml")])))


def test_empty_file_and_empty_directory_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert _found(tmp_path / "empty.yaml") == [f"error: no objects found: {tmp_path / 'empty.yaml'} is empty"]
    (tmp_path / "directory").mkdir()
    with pytest.raises(Failure, match="recognized file extensions"):
        _found(tmp_path / "directory")


def test_stdin_is_read_for_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(_GOOD.encode())))
    (item,) = documents(["-"])
    assert isinstance(item, Manifest)
    assert (item.source, item.obj.metadata.name) == ("STDIN", "shop")


def test_namespace_of_the_command_must_not_contradict_the_manifest(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: a}\n")
    (item,) = documents([str(path)])
    assert isinstance(item, Manifest)
    item.settle("b", demanded=False)
    assert item.obj.metadata.namespace == "a"
    with pytest.raises(Failure, match='does not match the namespace "b"'):
        item.settle("b", demanded=True)
