"""What people type to name objects: `pods`, `po/web`, `deploy,svc`, `all`, `node n1 n2`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from podctl.failure import Failure
from podplane.errors import NotFound
from podplane.kinds import Kind, typed

ALL = ("pods", "services", "deployments.apps", "replicasets.apps")
"""What `all` stands for (kubectl's category of that name)."""


@dataclass(frozen=True, slots=True)
class Target:
    """Objects of one kind: the named ones, or every one where `names` is empty."""

    kind: Kind
    names: tuple[str, ...] = ()


def kind_named(word: str) -> Kind:
    """The kind that `po`, `Pod` or `deployments.apps` means; Failure in kubectl's words."""
    try:
        return typed(word)
    except NotFound:
        raise Failure(f'error: the server doesn\'t have a resource type "{word}"; see podctl api-resources') from None


def kinds_named(words: str) -> list[Kind]:
    """The kinds of a comma separated list, `all` among them."""
    found: list[Kind] = []
    for word in words.split(","):
        for one in ALL if word == "all" else (word,):
            kind = kind_named(one)
            if kind not in found:
                found.append(kind)
    return found


def targets(words: Sequence[str]) -> list[Target]:
    """`TYPE NAME...`, `TYPE,TYPE [NAME...]` or `TYPE/NAME...`, in order of appearance, grouped by kind."""
    if not words:
        raise Failure("error: You must specify the type of resource, for example: pods. See podctl api-resources.")
    if any("/" in word for word in words):
        return _by_slash(words)
    return [Target(kind, tuple(words[1:])) for kind in kinds_named(words[0])]


def one_target(words: Sequence[str], default: str | None = None) -> tuple[Kind, str]:
    """Exactly one object: `TYPE NAME`, `TYPE/NAME` or, with a default kind, `NAME`."""
    if default and len(words) == 1 and "/" not in words[0]:
        return kind_named(default), words[0]
    found = targets(words)
    if len(found) != 1 or len(found[0].names) != 1:
        raise Failure("error: exactly one object must be named, as TYPE NAME or TYPE/NAME")
    return found[0].kind, found[0].names[0]


def object_word(kind: Kind, name: str) -> str:
    """How results name an object: `pod/web`, `deployment.apps/web`."""
    return f"{_word(kind)}/{name}"


def quoted_word(kind: Kind, name: str) -> str:
    """How deletions name an object: `pod "web"`, `deployment.apps "web"`."""
    return f'{_word(kind)} "{name}"'


def _word(kind: Kind) -> str:
    return kind.name.lower() + (f".{kind.group}" if kind.group else "")


def _by_slash(words: Sequence[str]) -> list[Target]:
    found: dict[str, Target] = {}
    for word in words:
        kind_word, separator, name = word.partition("/")
        if not separator:
            raise Failure(
                "error: there is no need to specify a resource type as a separate argument when passing "
                "arguments in resource/name form (e.g. 'podctl get resource/<resource_name>' instead of "
                "'podctl get resource resource/<resource_name>'"
            )
        if not kind_word or not name or "/" in name:
            raise Failure(f'error: arguments in resource/name form must have a single resource and name, not "{word}"')
        kind = kind_named(kind_word)
        earlier = found.get(kind.name, Target(kind))
        found[kind.name] = Target(kind, (*earlier.names, name))
    return list(found.values())
