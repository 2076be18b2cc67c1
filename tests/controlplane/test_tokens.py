"""Tokens: what is kept of them, and when they stop to work."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from controlplane.tokens import Tokens


def test_a_token_is_known_by_its_secret_which_is_nowhere_on_disk(tmp_path: Path) -> None:
    bearer = Tokens(tmp_path / "tokens").create("bob", "view", 60)
    identifier, _, secret = bearer.partition(".")
    file = tmp_path / "tokens" / f"{identifier}.json"
    assert secret not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    token = Tokens(tmp_path / "tokens").check(bearer)
    assert token is not None
    assert (token.user, token.role) == ("bob", "view")


@pytest.mark.parametrize("wrong", ["", ".", "x", "{id}", "{id}.", "{id}.x", "../tokens/{id}.{secret}", "{ID}.{secret}"])
def test_anything_but_the_token_itself_is_unknown(tmp_path: Path, wrong: str) -> None:
    tokens = Tokens(tmp_path)
    identifier, _, secret = tokens.create("bob", "admin", None).partition(".")
    bearer = wrong.format(id=identifier, secret=secret, ID="0" * 16)
    assert tokens.check(bearer) is None


def test_a_token_ends_with_its_time_and_is_then_swept(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    ended, lasting = tokens.create("bob", "view", 0), tokens.create("bob", "view", None)
    assert (tokens.check(ended), tokens.remove_expired()) == (None, 1)
    assert tokens.check(lasting) is not None


def test_a_removed_file_revokes_its_token_at_once(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    bearer = tokens.create("bob", "view", None)
    assert tokens.check(bearer) is not None
    (tmp_path / f"{bearer.partition('.')[0]}.json").unlink()
    assert tokens.check(bearer) is None
