"""What an image is to the rest of the agent. Pure."""

from __future__ import annotations

from dataclasses import dataclass

HOST = "host"
"""The image id that stands for the node's own filesystem."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is on the node, unpacked. `layers`: diff ids (sha256:...), the lowest first."""

    id: str
    """sha256:<digest of the config>, or "host"."""
    ref: str
    repo_digest: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    layers: tuple[str, ...] = ()
    stop_signal: str = ""


class ImageFailure(Exception):
    """An image cannot be had. `reason` is the status that people see (ErrImagePull ...)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
