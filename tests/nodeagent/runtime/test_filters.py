"""Which seccomp profiles of a node's own are taken, and what is said of the others."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nodeagent.runtime.filters import Filters
from nodeagent.types import RuntimeFailure

ALLOWS = {"defaultAction": "SCMP_ACT_ALLOW"}


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    """The node's profiles, good and bad, and a good one beside their directory."""
    made = tmp_path / "seccomp"
    (made / "team").mkdir(parents=True)
    (tmp_path / "outside.json").write_text(json.dumps(ALLOWS))
    (made / "team" / "own.json").write_text(json.dumps(ALLOWS))
    (made / "inner.json").symlink_to("team/own.json")
    (made / "link.json").symlink_to("../outside.json")
    (made / "root.json").symlink_to(tmp_path / "outside.json")
    for name, text in {"words.json": "words", "shape.json": "{}", "list.json": "[]"}.items():
        (made / name).write_text(text)
    os.mkfifo(made / "fifo.json")
    return made


@pytest.mark.parametrize("name", ["team/own.json", "./team/../team/own.json", "inner.json"])
def test_a_profile_below_the_directory_is_taken(profiles: Path, name: str) -> None:
    made, key = Filters(profiles.parent, None).filter(f"localhost/{name}", [])
    assert (made.profile, key) == ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}, "")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("missing.json", "No such file or directory"),
        ("../outside.json", "it leads out of that directory"),
        ("{state}/outside.json", "it leads out of that directory"),
        ("link.json", "it leads out of that directory"),
        ("root.json", "it leads out of that directory"),
        ("team", "Is a directory"),
        ("words.json", "it is no seccomp profile: JSONDecodeError: Expecting value"),
        ("shape.json", "it is no seccomp profile: KeyError: 'defaultAction'"),
        ("list.json", "it is no seccomp profile: TypeError: "),
        ("fifo.json", "it is no seccomp profile: JSONDecodeError: Expecting value"),
    ],
)
def test_any_other_is_the_containers_failure_and_says_why(profiles: Path, name: str, why: str) -> None:
    name, filters = name.format(state=profiles.parent), Filters(profiles.parent, None)
    open_before = os.listdir("/proc/self/fd")
    with pytest.raises(RuntimeFailure) as caught:
        filters.filter(f"localhost/{name}", [])
    assert caught.value.reason == "CreateContainerError"
    assert caught.value.message.startswith(f"cannot load seccomp profile {name!r} from {profiles}: {why}")
    assert os.listdir("/proc/self/fd") == open_before
