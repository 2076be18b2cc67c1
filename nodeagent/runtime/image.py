"""What an image is to the rest of the agent. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass

HOST = "host"
"""The image id that stands for the node's own filesystem."""
MAX_LAYER = 32 << 30
"""Bytes that a layer may have, unpacked."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is on the node, unpacked. `layers`: diff ids (sha256:...), the lowest first."""

    id: str
    """sha256:<digest of the config>, or "host"."""
    ref: str
    """The reference in full that it was asked for by."""
    repo_digest: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    layers: tuple[str, ...] = ()
    stop_signal: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """An image as the node's disk has it."""

    image: Image
    names: tuple[str, ...]
    """Every reference and digest that it was pulled as."""
    used: float
    """When a container asked for it last; seconds since the epoch."""
    size: int
    """Bytes of its layers, unpacked; those that it shares with others included."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds for each answer of a registry, without progress, and for unpacking a layer; bytes of a layer, unpacked;
    how many downloads at a time."""

    ask: float = 30.0
    stall: float = 60.0
    unpack: float = 600.0
    layer: int = MAX_LAYER
    parallel: int = 4


class ImageFailure(Exception):
    """An image cannot be had. `reason` is the status that people see (ErrImagePull ...)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def stop_signal(text: str) -> int:
    """The number of an image's STOPSIGNAL: SIGQUIT, quit, 3, SIGRTMIN+3. SIGTERM where it says nothing useful."""
    name, _, offset = text.upper().removeprefix("SIG").partition("+")
    if name.isdigit():
        number = int(name)
    else:
        number = int(getattr(signal, f"SIG{name}", 0))
        number += int(offset) if number and offset.isdigit() else 0
    return number if 1 <= number <= signal.SIGRTMAX else int(signal.SIGTERM)


def pull_failed(image: str, why: object, reason: str = "ErrImagePull") -> ImageFailure:
    """The failure of a pull, in the kubelet's words."""
    return ImageFailure(reason, f'failed to pull image "{image}": {why}')
