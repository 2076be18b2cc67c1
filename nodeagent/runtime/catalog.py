"""What the node's disk holds of images; everything here blocks for a short time: call it in a thread.

Owns state/images: layers/<diff id> (unpacked, the lower directories of overlays), sizes/<diff id> (their bytes),
configs/<image id> (the registry's bytes), names/<hash of the reference> (what it was pulled as), tmp/ (pulls in
progress, swept at open). Everything appears by rename, whole and synced. A config's mtime is when the image was last
used. Never asks a registry. Fails with ImageFailure("ImageInspectError") for what it holds and cannot read, OSError.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nodeagent.runtime import manifests, references
from nodeagent.runtime.image import Held, Image, ImageFailure
from nodeagent.runtime.manifests import hexadecimal
from podplane.files import sync

log = logging.getLogger(__name__)

_UNREADABLE = (OSError, ValueError, KeyError, TypeError)


@dataclass(frozen=True, slots=True)
class _Name:
    """What a reference was pulled as."""

    ref: str
    image: str
    digest: str


class Catalog:
    """The images below one directory."""

    def __init__(self, base: Path) -> None:
        self.layers, self.tmp = base / "layers", base / "tmp"
        self._configs, self._names, self._sizes = base / "configs", base / "names", base / "sizes"

    def open(self) -> None:
        """Make the directories; sweep what pulls that were cut off have left."""
        shutil.rmtree(self.tmp, ignore_errors=True)
        for path in (self.layers, self._configs, self._names, self._sizes, self.tmp):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    # ── looking up ───────────────────────────────────────────────────────────────────────────────────────────

    def known(self, ref: str) -> Image | None:
        """The image that a reference was pulled as. Raises ImageFailure("ImageInspectError") where it is damaged."""
        try:
            name = _read_name(self._name_file(ref))
        except FileNotFoundError:
            return None
        except _UNREADABLE as error:
            raise _damaged(ref, error) from error
        return self.load(name.image, ref, name.digest)

    def by_digest(self, ref: str, digest: str) -> Image | None:
        """The image whose manifest has this digest, whatever it was called; now also called `ref`."""
        for path in self._names.iterdir():
            try:
                name = _read_name(path)
                if name.digest.rpartition("@")[2] == digest:
                    image = self.load(name.image, ref, f"{references.parse(ref).name}@{digest}")
                    self._name(ref, image.id, image.repo_digest)
                    return image
            except (*_UNREADABLE, ImageFailure):
                # A damaged one is pulled again: that is its repair.
                continue
        return None

    def load(self, id: str, ref: str, repo_digest: str) -> Image:
        """An image by its id, used from now on. Raises ImageFailure("ImageInspectError")."""
        try:
            path = self._configs / hexadecimal(id)
            config = path.read_bytes()
            manifests.verify(config, id, "config")
            image = manifests.read_image(id, ref, repo_digest, config)
            for layer in image.layers:
                os.scandir(self.layers / hexadecimal(layer)).close()  # it is there, and can be read
            os.utime(path)
        except _UNREADABLE as error:
            raise _damaged(ref, error) from error
        return image

    def has_layer(self, diff_id: str) -> bool:
        """Whether a layer is here."""
        return (self.layers / hexadecimal(diff_id)).is_dir()

    def held(self) -> list[Held]:
        """Every image; one that cannot be read any more counts as used never."""
        names: dict[str, list[str]] = {}
        for path in self._names.iterdir():
            with contextlib.suppress(*_UNREADABLE):
                name = _read_name(path)
                names.setdefault(name.image, []).extend((name.digest, name.ref))
        return [found for path in self._configs.iterdir() for found in self._held(path, names)]

    def _held(self, path: Path, names: dict[str, list[str]]) -> Iterator[Held]:
        id = f"sha256:{path.name}"
        called = tuple(sorted(set(names.get(id, ())), key=lambda name: ("@" not in name, name)))
        with contextlib.suppress(FileNotFoundError):
            try:
                used = path.stat().st_mtime
                image = manifests.read_image(id, called[0] if called else id, "", path.read_bytes())
                yield Held(image, called, used, sum(map(self.size, image.layers)))
            except ValueError:
                yield Held(Image(id, id), called, 0.0, 0)

    def size(self, diff_id: str) -> int:
        """Bytes of an unpacked layer; 0 where nobody knows."""
        try:
            return int((self._sizes / hexadecimal(diff_id)).read_text())
        except (OSError, ValueError):
            return 0

    # ── changing ─────────────────────────────────────────────────────────────────────────────────────────────

    def take_layer(self, draft: Path, diff_id: str, size: int) -> None:
        """Adopt an unpacked, synced layer by rename."""
        target = self.layers / hexadecimal(diff_id)
        if target.exists():  # something that is no layer
            self._discard(target)
        _write(self._sizes / hexadecimal(diff_id), str(size).encode(), self.tmp)
        draft.rename(target)

    def publish(self, id: str, config: bytes, ref: str, repo_digest: str) -> Image:
        """Make an image known, all of whose layers are here."""
        sync(self.layers)
        _write(self._configs / hexadecimal(id), config, self.tmp)
        self._name(ref, id, repo_digest)
        return self.load(id, ref, repo_digest)

    def touch(self, ids: Iterable[str]) -> None:
        """Note that these images are used now."""
        for id in ids:
            with contextlib.suppress(FileNotFoundError, ValueError):
                os.utime(self._configs / hexadecimal(id))

    def remove(self, id: str, pinned: Collection[str]) -> int:
        """Forget an image, and delete the layers that no other image has and nobody has pinned; bytes of them."""
        found = {held.image.id: held.image for held in self.held()}
        if id not in found:
            return 0
        for path in self._names.iterdir():
            with contextlib.suppress(*_UNREADABLE):
                if _read_name(path).image == id:
                    path.unlink()
        (self._configs / hexadecimal(id)).unlink()
        kept = {layer for image in found.values() if image.id != id for layer in image.layers} | set(pinned)
        return sum(self._drop(hexadecimal(layer)) for layer in set(found[id].layers) - kept)

    def sweep(self, pinned: Collection[str], before: float) -> int:
        """Delete layers of no image that are older than `before`: of pulls that failed later. Bytes of them."""
        kept = {hexadecimal(layer) for held in self.held() for layer in held.image.layers}
        kept |= {hexadecimal(layer) for layer in pinned}
        strays = [path for path in self.layers.iterdir() if path.name not in kept]
        return sum(self._drop(path.name) for path in strays if path.stat().st_ctime < before)

    def _drop(self, name: str) -> int:
        size = self.size(f"sha256:{name}")
        with contextlib.suppress(FileNotFoundError):
            self._discard(self.layers / name)
        (self._sizes / name).unlink(missing_ok=True)
        return size

    def _discard(self, path: Path) -> None:
        # Renamed first: a layer half deleted must not be found by its name.
        doomed = Path(tempfile.mkdtemp(prefix="gone-", dir=self.tmp))
        path.rename(doomed / "layer")
        shutil.rmtree(doomed)

    def _name_file(self, ref: str) -> Path:
        return self._names / hashlib.sha256(ref.encode()).hexdigest()

    def _name(self, ref: str, id: str, repo_digest: str) -> None:
        text = json.dumps({"ref": ref, "image": id, "digest": repo_digest})
        _write(self._name_file(ref), text.encode(), self.tmp)


def _read_name(path: Path) -> _Name:
    found = json.loads(path.read_bytes())
    return _Name(str(found["ref"]), str(found["image"]), str(found["digest"]))


def _damaged(ref: str, error: Exception) -> ImageFailure:
    return ImageFailure("ImageInspectError", f'failed to inspect image "{ref}": {error}')


def _write(path: Path, data: bytes, tmp: Path) -> None:
    fd, draft = tempfile.mkstemp(dir=tmp)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
    os.rename(draft, path)
    sync(path.parent)
