"""The one error of this package."""

from __future__ import annotations


class SandboxFailure(Exception):
    """A sandbox or its network could not be made or removed. Shown to people as FailedCreatePodSandBox."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
