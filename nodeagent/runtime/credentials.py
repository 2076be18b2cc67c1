"""Which of a pod's logins a registry gets to see, as the kubelet's keyring chooses. Pure.

A key of a docker config is a registry, a path below it, or a pattern (`*.example.com`), with or without scheme and
`/v1/`. The longest match comes first; several are tried one after the other. What names another registry goes along
unchanged: a mirror may be meant.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

Login = tuple[str, Mapping[str, str]]
"""A key of a docker config, and its entry: auth, or username and password; identitytoken."""

_DOCKER_HUB = "index.docker.io"


def authfiles(logins: Sequence[Login], name: str) -> tuple[bytes | None, ...]:
    """The auth files to try, in order, for an image (`registry/repository`); one None: nothing is known."""
    registry = name.partition("/")[0]
    keyed = [(_key(key), entry) for key, login in logins if (entry := _entry(login))]
    matching = sorted((found for found in keyed if matches(found[0], name)), key=lambda found: found[0], reverse=True)
    if not matching and registry == "docker.io":
        matching = [found for found in keyed if found[0] == _DOCKER_HUB]
    chosen: list[dict[str, str]] = []
    for _, entry in matching:
        if entry not in chosen:
            chosen.append(entry)
    others: dict[str, dict[str, str]] = {}
    for key, entry in keyed:
        if "*" not in key and key.partition("/")[0] not in (registry, _DOCKER_HUB):
            others.setdefault(key, entry)
    if not chosen:
        return (_file(others) if others else None,)
    return tuple(_file({**others, registry: entry}) for entry in chosen)


def matches(key: str, name: str) -> bool:
    """Whether a key is meant for an image: same number of labels, each by its pattern, same port, path as prefix."""
    host, _, path = key.partition("/")
    registry, _, repository = name.partition("/")
    wanted, _, wanted_port = host.partition(":")
    found, _, found_port = registry.partition(":")
    labels, others = wanted.split("."), found.split(".")
    if wanted_port != found_port or len(labels) != len(others) or not repository.startswith(path):
        return False
    return all(fnmatchcase(other, label) for label, other in zip(labels, others, strict=True))


def _key(text: str) -> str:
    bare = text.partition("://")[2] or text
    host, _, path = bare.partition("/")
    for prefix in ("v1/", "v2/"):
        if f"{path}/".startswith(prefix):
            path = path[len(prefix) :]
    path = path.strip("/")
    return f"{host}/{path}" if path else host


def _entry(login: Mapping[str, str]) -> dict[str, str]:
    """As an auth file has it; empty where it says nothing."""
    found = {name: login[name] for name in ("auth", "identitytoken") if isinstance(login.get(name), str)}
    user, password = login.get("username"), login.get("password")
    if not found.get("auth") and isinstance(user, str) and isinstance(password, str):
        found["auth"] = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {name: value for name, value in found.items() if value}


def _file(auths: Mapping[str, Mapping[str, str]]) -> bytes:
    return json.dumps({"auths": auths}, sort_keys=True).encode()
