"""What a peer does in the race: start a pod of one init container (`true`) and one app (`sleep`), and delete it."""

from __future__ import annotations

from typing import Protocol


class Peer(Protocol):
    """Methods return when the thing is so: start when the app runs, delete when the pod is gone."""

    name: str

    def start(self, pod: str) -> None: ...

    def delete(self, pod: str) -> None: ...

    def processes(self) -> set[int]:
        """Every process of every pod, and those that supervise them."""
        ...

    def close(self) -> None: ...


class Skipped(Exception):
    """The peer is not here; the message names the package to install."""
