"""Which logins a registry gets to see."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from nodeagent.runtime.credentials import Login, authfiles, matches


def auth(user: str) -> str:
    return base64.b64encode(f"{user}:secret".encode()).decode()


def login(key: str, user: str) -> Login:
    return key, {"auth": auth(user)}


def shown(logins: list[Login], name: str) -> list[dict[str, Any]]:
    return [json.loads(file)["auths"] for file in authfiles(logins, name) if file is not None]


def test_without_logins_there_is_one_anonymous_try() -> None:
    assert authfiles([], "docker.io/library/nginx") == (None,)
    assert authfiles([("r.example.com", {"email": "a@b"})], "r.example.com/x") == (None,)


def test_the_longest_path_comes_first_and_the_others_after_it() -> None:
    logins = [login("r.example.com", "all"), login("r.example.com/team/app", "app"), login("r.example.com/other", "no")]
    found = shown(logins, "r.example.com/team/app/web")
    assert [auths["r.example.com"]["auth"] for auths in found] == [auth("app"), auth("all")]


def test_two_logins_of_one_registry_are_tried_in_order_and_the_same_one_once() -> None:
    logins = [login("r:5000", "one"), login("https://r:5000/v2/", "two"), login("r:5000", "one")]
    assert [auths["r:5000"]["auth"] for auths in shown(logins, "r:5000/x")] == [auth("one"), auth("two")]


def test_username_and_password_are_as_good_as_auth() -> None:
    (found,) = shown([("r:1", {"username": "u", "password": "secret"})], "r:1/x")
    assert found == {"r:1": {"auth": auth("u")}}


def test_docker_hubs_old_name_is_meant_for_docker_io() -> None:
    (found,) = shown([login("https://index.docker.io/v1/", "hub")], "docker.io/library/nginx")
    assert found == {"docker.io": {"auth": auth("hub")}}
    assert authfiles([login("https://index.docker.io/v1/", "hub")], "quay.io/x") == (None,)


def test_what_names_a_mirror_goes_along() -> None:
    (found,) = shown([login("mirror:5000", "m"), login("docker.io", "hub")], "docker.io/library/nginx")
    assert found == {"docker.io": {"auth": auth("hub")}, "mirror:5000": {"auth": auth("m")}}


@pytest.mark.parametrize(
    ("key", "name", "expected"),
    [
        ("*.azurecr.io", "a.azurecr.io/x", True),
        ("*.azurecr.io", "a.b.azurecr.io/x", False),
        ("r.io", "r.io/x", True),
        ("r.io/x", "r.io/y", False),
        ("r.io:1", "r.io/x", False),
        ("*.*.io", "a.b.io/x", True),
    ],
)
def test_patterns_match_label_by_label(key: str, name: str, expected: bool) -> None:
    assert matches(key, name) is expected
