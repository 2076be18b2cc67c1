"""Programs that are too old, broken or missing: the runtime is not opened, and says what is wrong with which."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.runtime import detection
from nodeagent.runtime.command import SEARCH_PATH
from nodeagent.runtime.detection import RuntimeNotReady
from tests.nodeagent.runtime.conftest import KIND, Node


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose programs come before the node's."""
    monkeypatch.setattr(detection, "SEARCH_PATH", f"{tmp_path}:{SEARCH_PATH}")
    return tmp_path


def put(directory: Path, name: str, script: str) -> str:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("name", "says", "found", "least"),
    [
        ("crun", "crun version 1.7.2\ncommit: 0356bf4aff9a133d655dc13b1d9ac9424706cac4\nspec: 1.0.0", "1.7", "1.8"),
        ("crun", "crun version 0.19", "0.19", "1.8"),
        ("runc", "runc version 1.0.3\nspec: 1.0.2-dev\ngo: go1.17", "1.0", "1.1"),
        ("conmon", "conmon version 2.0.25\ncommit: unknown", "2.0", "2.1"),
    ],
)
async def test_one_that_is_too_old_is_named_with_what_is_needed(
    programs: Path, name: str, says: str, found: str, least: str
) -> None:
    path = put(programs, name, f"cat <<'END'\n{says}\nEND")
    with pytest.raises(RuntimeNotReady) as caught:
        await detection._version(name)
    assert str(caught.value) == f"{path} is version {found}, at least {least} is needed"


@pytest.mark.parametrize(("name", "says"), [
    ("crun", "crun version 1.8"), ("crun", "crun version 1.14.1"), ("runc", "runc version 1.1.5+ds1"),
    ("runc", "runc version 1.2.0-rc.1"), ("conmon", "conmon version 2.1.6"), ("conmon", "conmon version 3.0.0"),
])  # fmt: skip
async def test_one_that_is_new_enough_is_taken(programs: Path, name: str, says: str) -> None:
    path = put(programs, name, f"echo '{says}'")
    assert await detection._version(name) == (path, says.split()[-1])


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo no number", "--version failed: no number"),
        ("echo its library is missing >&2; exit 127", "--version failed: its library is missing"),
    ],
)
async def test_one_that_does_not_say_its_version_is_not_taken(programs: Path, script: str, words: str) -> None:
    path = put(programs, "crun", script)
    with pytest.raises(RuntimeNotReady) as caught:
        await detection._version("crun")
    assert str(caught.value) == f"{path} {words}"


@pytest.mark.parametrize("name", ["conmon", KIND])
async def test_a_node_with_an_old_program_does_not_open_its_runtime(node: Node, programs: Path, name: str) -> None:
    put(programs, name, f"echo {name} version 0.1.0")
    with pytest.raises(RuntimeNotReady, match=rf"{name} is version 0\.1, at least"):
        await node.open()
