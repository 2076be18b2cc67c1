"""The config file: where it is found, what it may hold, and how it is written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from podplane import context
from podplane.errors import Invalid, NotFound
from tests.podctl.conftest import Podctl

_FILE = """\
apiVersion: podplane.io/v1
kind: Config
current-context: local
contexts:
- name: local
  server: 127.0.0.1:7443
  certificateAuthority: ca.pem
  tokenFile: token
- {name: far, server: "192.0.2.1:7443", token: abc, namespace: shop}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "ca.pem").write_text("PEM")
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "config").write_text(_FILE)
    return tmp_path / "config"


def test_paths_are_relative_to_the_file(path: Path) -> None:
    current = context.read(path).context()
    assert (current.authority(), current.bearer()) == (b"PEM", "secret")


def test_written_file_reads_back_and_is_private(path: Path, tmp_path: Path) -> None:
    file = context.read(path)
    copy = context.ContextFile(tmp_path / "deep" / "config", file.current, file.contexts)
    context.write(copy)
    assert context.read(copy.path) == copy
    assert copy.path.stat().st_mode & 0o777 == 0o600


def test_token_is_in_no_representation(path: Path) -> None:
    far = context.read(path).context("far")
    assert "abc" not in repr(far)
    assert "abc" not in str(context.document(context.read(path), secrets=False))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Pod", "not of kind Config"),
        ("{", "cannot parse"),
        ("kind: [", "cannot parse"),
        ("kind: Config\ncontext: x", "unknown field context"),
        ("kind: Config\ncontexts: x", "contexts is not a list"),
        ("kind: Config\ncontexts: [{server: a}]", r"contexts\[0\] has no name"),
        ("kind: Config\ncontexts: [{name: a, sever: b}]", "unknown field sever"),
    ],
)
def test_wrong_file_is_named_with_what_is_wrong(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(Invalid, match=message):
        context.read(path)


def test_context_that_does_not_exist_names_those_that_do(path: Path) -> None:
    with pytest.raises(NotFound, match="it has: local, far"):
        context.read(path).context("near")


def test_empty_token_file_is_refused(path: Path) -> None:
    path.with_name("token").write_text("\n")
    with pytest.raises(Invalid, match="it is empty"):
        context.read(path).context().bearer()


def test_file_is_found_by_variable_then_home_then_checkout_then_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def place(name: str) -> Path:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
        return tmp_path / name

    inside = tmp_path / "checkout" / "deep"
    inside.mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "installed" / ".venv"))
    home = {"XDG_CONFIG_HOME": str(tmp_path / "home")}
    assert context.find(home, inside) is None
    beside = place("installed/.run/config")
    assert context.find(home, inside) == beside
    above = place("checkout/.run/config")
    assert context.find(home, inside) == above
    own = place("home/podplane/config")
    assert context.find(home, inside) == own
    assert context.find({**home, "PODPLANE_CONFIG": "/no/such"}, inside) == Path("/no/such")


def test_config_verbs_show_and_choose_contexts(path: Path, alone: Podctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODPLANE_CONFIG", str(path))
    assert alone("config", "current-context").out == "local\n"
    assert alone("config", "get-contexts", "-o", "name").out == "local\nfar\n"
    assert alone("config", "use-context", "far").out == 'Switched to context "far".\n'
    assert alone("config", "get-contexts").out.splitlines()[2].split() == ["*", "far", "192.0.2.1:7443", "shop"]
    assert alone("config", "use-context", "near").err == 'error: no context exists with the name: "near"\n'
    assert alone("config", "set-context", "--current", "-n", "other").out == 'Context "far" modified.\n'
    assert context.read(path).context().namespace == "other"
    assert "token: REDACTED" in alone("config", "view").out
