"""The images of the node: pulled once, unpacked by layer, shared by all containers. START HERE for images.

    ensure ─► references.py ─► catalog.py (is it here?) ─► pulls.py (who else waits?) ─► puller.py ─► skopeo.py
                                                                            └► layers.py, a process of its own

Owns the policy, and who may count on an image: one that was handed out is not removed for a while, in which its
container appears. Fails with ImageFailure; the reasons are the statuses InvalidImageName, ErrImageNeverPull,
ErrImagePull, RegistryUnavailable, ImageInspectError.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from nodeagent.metrics import Metrics
from nodeagent.runtime import credentials, references
from nodeagent.runtime.catalog import Catalog
from nodeagent.runtime.credentials import Login
from nodeagent.runtime.image import HOST, Held, Image, ImageFailure, Limits
from nodeagent.runtime.puller import NO_SPACE, Puller
from nodeagent.runtime.pulls import Pulls, Tell
from nodeagent.runtime.skopeo import Skopeo

LEASE = 120.0
"""Seconds for which an image that was handed out is not removed, whoever says that it is unused."""

__all__ = ["Image", "ImageFailure", "ImageStore", "Limits"]


def _nothing(_words: str = "") -> None:
    """Nobody wants to know."""


class ImageStore:
    """Pulls and knows images. `registries_conf`: None for the system's."""

    def __init__(
        self, state: Path, run: Path, *, registries_conf: Path | None = None, limits: Limits | None = None,
        metrics: Metrics | None = None,
    ) -> None:  # fmt: skip
        limits = limits or Limits()
        self._catalog = Catalog(state / "images")
        self.layers = self._catalog.layers
        skopeo = Skopeo(self._catalog.tmp, run / "auth", registries_conf, limits.ask, limits.stall)
        self._metrics = metrics or Metrics()
        self._puller = Puller(skopeo, self._catalog, limits, self._metrics)
        self._pulls = Pulls()
        self._leases: dict[str, float] = {}
        self._doomed: set[str] = set()
        self.changes = 0
        """Counts up whenever there is another image, or another name for one."""
        self.on_full: Callable[[], None] = _nothing
        """Called when a pull found the disk full."""
        self._listed: Sequence[Held] = ()
        self._listed_at = -1
        self._catalog.open()

    @property
    def pulling(self) -> int:
        """How many pulls there are, those that wait to download included."""
        return self._pulls.depth

    async def close(self) -> None:
        """End the pulls in progress; what they have begun is swept at the next open."""
        await self._pulls.close()

    async def ensure(
        self, image: str, policy: str, *, logins: Sequence[Login] = (),
        on_pull: Callable[[], None] = _nothing, on_progress: Tell = _nothing,
    ) -> Image:  # fmt: skip
        """The image, pulled where the policy (Always, IfNotPresent, Never) says so. Raises ImageFailure.

        logins: of the pod, in its order. on_pull: called when a registry is asked. on_progress: how far that is.
        """
        if image == HOST:
            return Image(HOST, HOST)
        reference = references.parse(image)
        ref = str(reference)
        if policy != "Always" and (known := await self._known(ref)) is not None:
            return known
        if policy == "Never":
            message = f'Container image "{image}" is not present with pull policy of Never'
            raise ImageFailure("ErrImageNeverPull", message)
        on_pull()
        auths = credentials.authfiles(logins, reference.name)
        return await self._pulls.join((ref, auths), lambda tell: self._pull(ref, auths, tell), on_progress)

    async def get(self, id: str) -> Image:
        """An image that ensure() has returned, by its id. Raises ImageFailure("ImageInspectError", ...)."""
        if id == HOST:
            return Image(HOST, HOST)
        return self._leased(await asyncio.to_thread(self._catalog.load, id, id, ""))

    async def _known(self, ref: str) -> Image | None:
        found = await asyncio.to_thread(self._catalog.known, ref)
        # What is just being removed is as good as gone.
        return None if found is None or found.id in self._doomed else self._leased(found)

    def _leased(self, image: Image) -> Image:
        self._leases[image.id] = time.monotonic() + LEASE
        return image

    async def _pull(self, ref: str, auths: Sequence[bytes | None], tell: Tell) -> Image:
        began, result = time.monotonic(), "cancelled"
        try:
            image = self._leased(await self._puller.pull(ref, auths, tell))
            result = "success"
        except ImageFailure as failure:
            result = failure.reason
            if NO_SPACE in failure.message.lower():
                self.on_full()
            raise
        finally:
            self._metrics.pulls.add(result)
        self._metrics.pull_seconds.observe(time.monotonic() - began)
        self.changes += 1
        return image

    # ── for garbage collection ───────────────────────────────────────────────────────────────────────────────

    async def held(self) -> list[Held]:
        """Every image, and when it was last used."""
        return await asyncio.to_thread(self._catalog.held)

    async def listed(self) -> Sequence[Held]:
        """The same without the times, read only when there was a change: for lists, not for decisions."""
        if self._listed_at != self.changes:
            self._listed_at = self.changes
            self._listed = [replace(one, used=0.0) for one in await self.held()]
        return self._listed

    async def touch(self, ids: Iterable[str]) -> None:
        """These are in use now."""
        await asyncio.to_thread(self._catalog.touch, list(ids))

    async def remove(self, id: str) -> int | None:
        """Forget an image and delete the layers that no other image has; bytes of them.

        No container may use it any more. One that was handed out a moment ago stays: None.
        """
        async with self._puller.turn:  # a pull that had it has handed it out by now
            if self._leases.get(id, 0.0) > time.monotonic():
                return None
            self._leases.pop(id, None)
            self._doomed.add(id)
            try:
                freed = await asyncio.to_thread(self._catalog.remove, id, set(self._puller.pinned))
            finally:
                self._doomed.discard(id)
        self.changes += 1
        return freed

    async def sweep(self, before: float) -> int:
        """Delete layers that belong to no image and came before that time; bytes of them."""
        async with self._puller.turn:
            return await asyncio.to_thread(self._catalog.sweep, set(self._puller.pinned), before)
