"""Kubernetes' $(NAME) expansion, in environment values, commands and arguments. Pure.

`$(NAME)` becomes the value, or stays as it is where NAME is not known; `$$` becomes `$`; anything else is literal.
Source: kubernetes/third_party/forked/golang/expansion.
"""

from __future__ import annotations

from collections.abc import Mapping


def expand(text: str, known: Mapping[str, str]) -> str:
    """Expand every reference in a text; what is inserted is not expanded again."""
    made, at = [], 0
    while (dollar := text.find("$", at)) >= 0:
        made.append(text[at:dollar])
        piece, at = _reference(text, dollar, known)
        made.append(piece)
    return "".join(made) + text[at:]


def _reference(text: str, dollar: int, known: Mapping[str, str]) -> tuple[str, int]:
    """What the `$` at an index stands for, and where to go on."""
    following = text[dollar + 1 : dollar + 2]
    if following == "$":
        return "$", dollar + 2
    if following == "(":
        end = text.find(")", dollar + 2)
        if end < 0:
            return "$(", dollar + 2
        name = text[dollar + 2 : end]
        return known.get(name, f"$({name})"), end + 1
    return "$" + following, dollar + 1 + len(following)


def missing(text: str, known: Mapping[str, str]) -> list[str]:
    """The names that a text refers to and that are not known: subPathExpr must not have any."""
    found: list[str] = []

    class Recorder(dict[str, str]):
        def get(self, key: str, default: str = "") -> str:  # type: ignore[override]
            if key not in known:
                found.append(key)
            return known.get(key, default)

    expand(text, Recorder())
    return found
