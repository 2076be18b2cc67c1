"""Which services nft has refused, so that they are not tried again with each writing. Pure.

A try that is refused costs a check of all that changed, and a reading of all that stands. So who is refused is spared
until he asks for something else, or until a while is over: it may have been the kernel's trouble and not his.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

RETRY = 60.0
"""Seconds until the same is tried again."""

Asked = Callable[[str], object]
"""What a service asks for, by its name; equal where it asks for the same."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    asked: object
    words: str
    until: float


class Spared:
    """By service, or whatever else has a part."""

    def __init__(self) -> None:
        self._refusals: dict[str, _Refusal] = {}

    def note(self, words: Mapping[str, str], asked: Asked, now: float) -> None:
        """These are refused, in these words."""
        self._refusals |= {key: _Refusal(asked(key), text, now + RETRY) for key, text in words.items()}

    def among(self, asked: Asked, now: float) -> dict[str, str]:
        """Who need not be tried now, and why; who must be is forgotten."""
        self._refusals = {
            key: item for key, item in self._refusals.items() if item.asked == asked(key) and now < item.until
        }
        return {key: item.words for key, item in self._refusals.items()}
