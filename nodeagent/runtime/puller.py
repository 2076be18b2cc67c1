"""One pull: manifest → (the one for this platform) → config → the layers that are missing → unpacked → known.

Everything is verified against the digest that names it before it is used. Layers that are here are not asked for, and
are pinned from that moment on: nobody may remove them. What a pull has begun lies below tmp/ until it is whole. Fails
with ImageFailure (RegistryUnavailable, ErrImagePull).
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nodeagent.metrics import Metrics
from nodeagent.runtime import manifests, references
from nodeagent.runtime.catalog import Catalog
from nodeagent.runtime.command import DIES_WITH_US
from nodeagent.runtime.image import Image, ImageFailure, Limits, pull_failed
from nodeagent.runtime.manifests import Blob, Malformed, Manifest, hexadecimal
from nodeagent.runtime.process import ProgramTimeout, run
from nodeagent.runtime.pulls import Tell
from nodeagent.runtime.skopeo import Skopeo

FIRST_WORD = 1.0
NEXT_WORD = 5.0
"""Seconds until a pull's progress is told, and between then and the next time: every waiting pod tells its watchers."""
QUEUED = "waiting for other downloads to end"
NO_SPACE = "no space left on device"

Layer = tuple[Blob, str]
"""As the registry has it, and its diff id."""


@dataclass(slots=True)
class Puller:
    """Pulls into a catalog. `turn`: held while the catalog's layers are counted on, or removed."""

    skopeo: Skopeo
    catalog: Catalog
    limits: Limits
    metrics: Metrics
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    pinned: Counter[str] = field(default_factory=Counter)
    """Diff ids of layers that pulls in progress count on."""
    _unpacking: dict[str, asyncio.Lock] = field(default_factory=dict)
    _downloads: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._downloads = asyncio.Semaphore(self.limits.parallel)

    async def pull(self, ref: str, auths: Sequence[bytes | None], tell: Tell) -> Image:
        """The image; `auths`: credentials to try, in order."""
        name = references.parse(ref).name
        try:
            index, auth = await self._first(ref, auths)
            digest = manifests.digest_of(index)
            async with self.turn:
                known = await asyncio.to_thread(self.catalog.by_digest, ref, digest)
            if known is not None:
                return known
            exact, manifest = await self._manifest(name, index, auth)
            config = await self.skopeo.config(exact, auth)
            manifests.verify(config, manifest.config, "config")
            manifests.check_platform(config, _architecture())
            layers = _layers(manifest, config)
            with self._pin(layers):
                await self._layers(exact, layers, auth, _Progress(tell))
                publish = self.catalog.publish
                return await asyncio.to_thread(publish, manifest.config, config, ref, f"{name}@{digest}")
        except (OSError, Malformed) as error:
            raise pull_failed(ref, error) from error

    async def _first(self, ref: str, auths: Sequence[bytes | None]) -> tuple[bytes, bytes | None]:
        """Manifest or index, verified, and the credentials that it was to be had with."""
        for tried, auth in enumerate(auths, 1):
            try:
                found = await self.skopeo.manifest(ref, auth)
            except ImageFailure as failure:
                if tried == len(auths) or failure.reason != "ErrImagePull":
                    raise
                continue
            expected = references.parse(ref).digest
            if expected:
                manifests.verify(found, expected, "manifest")
            return found, auth
        raise AssertionError("there is always one to try")

    async def _manifest(self, name: str, index: bytes, auth: bytes | None) -> tuple[str, Manifest]:
        """This platform's manifest, and the name that stands for exactly that one."""
        digest, data = manifests.digest_of(index), index
        if manifests.is_index(index):
            digest = manifests.choose(index, _architecture())
            data = await self.skopeo.manifest(f"{name}@{digest}", auth)
            manifests.verify(data, digest, "manifest")
        return f"{name}@{digest}", manifests.read_manifest(data)

    # ── layers ───────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _pin(self, layers: Sequence[Layer]) -> Iterator[None]:
        diff_ids = [diff_id for _, diff_id in layers]
        self.pinned.update(diff_ids)
        try:
            yield
        finally:
            self.pinned.subtract(diff_ids)
            self.pinned = +self.pinned

    async def _layers(self, exact: str, layers: Sequence[Layer], auth: bytes | None, progress: _Progress) -> None:
        if not await self._missing(layers):
            return
        if self._downloads.locked():
            progress.tell(QUEUED)
        async with self._downloads:
            if missing := await self._missing(layers):  # others may have come with them
                await self._download(exact, layers, missing, auth, progress)

    async def _missing(self, layers: Sequence[Layer]) -> list[Layer]:
        async with self.turn:  # what is being removed is gone, what is here is pinned
            return [layer for layer in layers if not self.catalog.has_layer(layer[1])]

    async def _download(
        self, exact: str, layers: Sequence[Layer], missing: Sequence[Layer], auth: bytes | None, progress: _Progress
    ) -> None:
        wanted = {blob.digest: blob for blob, _ in missing}
        progress.total = sum(blob.size for blob in wanted.values())
        _check_space(self.catalog.tmp, progress.total)
        directory = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="pull-", dir=self.catalog.tmp))
        try:
            blobs = directory / "blobs" / "sha256"
            blobs.mkdir(parents=True)
            for blob, _ in layers:
                if blob.digest not in wanted:
                    (blobs / hexadecimal(blob.digest)).touch()  # skopeo asks for what is not there
            await self.skopeo.blobs(exact, list(wanted.values()), directory, auth, progress)
            self.metrics.pull_bytes.add(by=progress.total)
            for blob, diff_id in missing:
                progress.say(f"unpacking {_amount(progress.total)}")
                await self._unpack(blobs / hexadecimal(blob.digest), blob.digest, diff_id, exact)
        finally:
            await asyncio.to_thread(shutil.rmtree, directory, True)

    async def _unpack(self, blob: Path, digest: str, diff_id: str, exact: str) -> None:
        # Two images may share it: the second one finds it done.
        async with self._unpacking.setdefault(diff_id, asyncio.Lock()):
            if self.catalog.has_layer(diff_id):
                return
            draft = blob.parent.parent / f"layer-{hexadecimal(diff_id)}"
            argv = [*DIES_WITH_US, sys.executable, "-I", "-m", "nodeagent.runtime.layers"]
            argv += [str(blob), digest, diff_id, str(draft), str(self.limits.layer)]
            try:
                done = await run(argv, deadline=self.limits.unpack)
            except ProgramTimeout as error:
                raise pull_failed(exact, f"cannot unpack layer {digest}: {error}") from None
            if done.code != 0:
                raise pull_failed(exact, f"cannot unpack layer {digest}: {done.words}")
            await asyncio.to_thread(self.catalog.take_layer, draft, diff_id, int(done.out))
        self._unpacking.pop(diff_id, None)


class _Progress:
    """How far a download is, told now and then."""

    def __init__(self, tell: Tell) -> None:
        self.tell = tell
        self._due = time.monotonic() + FIRST_WORD
        self.total = 0

    def __call__(self, arrived: int) -> None:
        self.say(f"{_amount(arrived)} of {_amount(self.total)}")

    def say(self, words: str) -> None:
        """Tell that, unless something was told a moment ago."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + NEXT_WORD
            self.tell(words)


def _layers(manifest: Manifest, config: bytes) -> list[Layer]:
    diff_ids = manifests.diff_ids(config)
    if len(diff_ids) != len(manifest.layers):
        raise Malformed(f"the config names {len(diff_ids)} layers, the manifest {len(manifest.layers)}")
    return list(zip(manifest.layers, diff_ids, strict=True))


def _architecture() -> str:
    return manifests.ARCHITECTURES.get(platform.machine(), platform.machine())


def _check_space(directory: Path, wanted: int) -> None:
    disk = os.statvfs(directory)
    if wanted > disk.f_bavail * disk.f_frsize:
        raise OSError(f"{NO_SPACE}: the image has {_amount(wanted)}, {_amount(disk.f_bavail * disk.f_frsize)} are free")


def _amount(count: int) -> str:
    """12.3 MiB."""
    if count < 1 << 20:
        return f"{count / 1024:.1f} KiB"
    return f"{count / (1 << 20):.1f} MiB" if count < 1 << 30 else f"{count / (1 << 30):.2f} GiB"
