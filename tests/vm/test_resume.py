"""A run of VM tests that was cut goes on where it was, as long as nothing has changed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.vm.resume import Passed


def git(checkout: Path, *words: str) -> None:
    identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.com"]
    subprocess.run(["git", "-C", checkout, *identity, *words], check=True, capture_output=True, timeout=30)


def test_what_has_passed_is_known_until_any_file_changes(tmp_path: Path) -> None:
    git(tmp_path, "init")
    (tmp_path / ".gitignore").write_text("/.cache/\n")
    (tmp_path / "tracked").write_text("one")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    assert Passed(tmp_path).tests() == frozenset()
    for test in ("tests/vm/test_a.py::test_a", "tests/vm/test_b.py::test_b[ipvs: drift]"):
        Passed(tmp_path).note(test)
    known = {"tests/vm/test_a.py::test_a", "tests/vm/test_b.py::test_b[ipvs: drift]"}
    assert Passed(tmp_path).tests() == known
    for file, words in (("tracked", "two"), ("new", "")):
        (tmp_path / file).write_text(words)
        assert Passed(tmp_path).tests() == frozenset()
    (tmp_path / "new").unlink()
    (tmp_path / "tracked").write_text("one")
    assert Passed(tmp_path).tests() == known
    git(tmp_path, "commit", "--allow-empty", "-m", "second")
    assert Passed(tmp_path).tests() == frozenset()


def test_without_git_nothing_is_remembered(tmp_path: Path) -> None:
    Passed(tmp_path).note("tests/vm/test_a.py::test_a")
    assert Passed(tmp_path).tests() == frozenset()
    assert list(tmp_path.iterdir()) == []
