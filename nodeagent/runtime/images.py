"""The images of the node: pulled once, unpacked by layer, shared by all containers.

Owns state/images: layers/<diff id> (unpacked, the lower directories of overlays), configs/<image id> (the registry's
bytes), names/<hash of the reference> (what a reference was pulled as), tmp/ (pulls in progress, swept at open).
Everything appears by rename, whole and synced. One pull is shared by all who wait for it. Nothing is removed here but
by remove(); a config's mtime is when the image was last used. Fails with ImageFailure; the reasons are the statuses
InvalidImageName, ErrImageNeverPull, ErrImagePull, RegistryUnavailable, ImageInspectError.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nodeagent.runtime import references
from nodeagent.runtime.image import HOST, Image, ImageFailure
from nodeagent.runtime.process import ProgramTimeout, run
from nodeagent.runtime.skopeo import Skopeo

_UNPACK_DEADLINE = 600.0
_MAX_LAYERS = 127
_MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
)

__all__ = ["Image", "ImageFailure", "ImageStore"]


class ImageStore:
    """Pulls and knows images. `registries_conf`: None for the system's."""

    def __init__(self, state: Path, run: Path, *, registries_conf: Path | None = None,
                 ask_deadline: float = 30.0, copy_deadline: float = 900.0) -> None:  # fmt: skip
        base = state / "images"
        self.layers = base / "layers"
        self._configs, self._names, self._tmp = base / "configs", base / "names", base / "tmp"
        self._skopeo = Skopeo(self._tmp, run / "auth", registries_conf, ask_deadline, copy_deadline)
        self._pulls: dict[tuple[str, bytes | None], asyncio.Task[Image]] = {}
        self._unpacking: dict[str, asyncio.Lock] = {}
        self._open()

    def _open(self) -> None:
        shutil.rmtree(self._tmp, ignore_errors=True)
        for path in (self.layers, self._configs, self._names, self._tmp):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def close(self) -> None:
        """End the pulls in progress; what they have begun is swept at the next open."""
        pulls = list(self._pulls.values())
        for pull in pulls:
            pull.cancel()
        await asyncio.gather(*pulls, return_exceptions=True)

    async def ensure(
        self, image: str, policy: str, *, on_progress: Callable[[str], None] | None = None, auth: bytes | None = None
    ) -> Image:
        """The image, pulled where the policy (Always, IfNotPresent, Never) says so. Raises ImageFailure.

        auth: a docker config.json with the credentials to use. on_progress: called with the full reference when a
        registry is asked.
        """
        if image == HOST:
            return Image(HOST, HOST)
        ref = str(references.parse(image))
        if policy != "Always" and (known := await asyncio.to_thread(self._known, ref)) is not None:
            return known
        if policy == "Never":
            message = f"Container image {image!r} is not present with pull policy of Never"
            raise ImageFailure("ErrImageNeverPull", message)
        if on_progress is not None:
            on_progress(ref)
        return await asyncio.shield(self._shared_pull(ref, auth))

    async def get(self, id: str) -> Image:
        """An image that ensure() has returned, by its id. Raises ImageFailure("ImageInspectError", ...)."""
        return Image(HOST, HOST) if id == HOST else await asyncio.to_thread(self._load, id, id, "")

    async def all(self) -> list[tuple[Image, float]]:
        """Every image and when it was last used (seconds since the epoch), for garbage collection."""
        return await asyncio.to_thread(self._all)

    async def remove(self, id: str) -> None:
        """Forget an image and delete the layers that no other image has. No container may use it any more."""
        await asyncio.to_thread(self._remove, id)

    # ── pulling ──────────────────────────────────────────────────────────────────────────────────────────────

    def _shared_pull(self, ref: str, auth: bytes | None) -> asyncio.Task[Image]:
        key = (ref, auth)
        if key not in self._pulls:
            task = asyncio.get_running_loop().create_task(self._pull(ref, auth), name=f"pull {ref}")
            self._pulls[key] = task
            task.add_done_callback(lambda done: self._pulled(key, done))
        return self._pulls[key]

    def _pulled(self, key: tuple[str, bytes | None], done: asyncio.Task[Image]) -> None:
        del self._pulls[key]
        if not done.cancelled():
            # Asked for, so that a failure whose waiters have all gone is not reported as forgotten.
            done.exception()

    async def _pull(self, ref: str, auth: bytes | None) -> Image:
        manifest = await self._skopeo.manifest(ref, auth)
        digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        known = await asyncio.to_thread(self._by_digest, ref, digest)
        if known is not None:
            return known
        repository = references.parse(ref).name
        directory = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="pull-", dir=self._tmp))
        try:
            # By digest: what the tag stood for a moment ago, though it has moved since.
            await self._skopeo.copy(f"{repository}@{digest}", directory / "image", auth)
            return await self._adopt(directory / "image", ref, f"{repository}@{digest}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ImageFailure("ErrImagePull", f"failed to pull image {ref!r}: {error}") from error
        finally:
            await asyncio.to_thread(shutil.rmtree, directory, True)

    async def _adopt(self, copied: Path, ref: str, repo_digest: str) -> Image:
        config_digest, blobs = await asyncio.to_thread(_read_manifest, copied, ref)
        config = await asyncio.to_thread((copied / _hex(config_digest)).read_bytes)
        if _digest(config) != config_digest:
            raise ImageFailure("ErrImagePull", f"failed to pull image {ref!r}: the config's digest is wrong")
        diff_ids = _diff_ids(config)
        if len(diff_ids) != len(blobs):
            raise ImageFailure("ErrImagePull", f"failed to pull image {ref!r}: config and manifest differ in layers")
        for blob, diff_id in zip(blobs, diff_ids, strict=True):
            await self._unpack(copied, blob, diff_id, ref)
        await asyncio.to_thread(self._publish, config_digest, config, ref, repo_digest)
        return await asyncio.to_thread(self._load, config_digest, ref, repo_digest)

    async def _unpack(self, copied: Path, digest: str, diff_id: str, ref: str) -> None:
        lock = self._unpacking.setdefault(diff_id, asyncio.Lock())
        async with lock:
            target = self.layers / _hex(diff_id)
            if target.exists():
                return
            draft = copied / f"layer-{_hex(diff_id)}"
            argv = [sys.executable, "-I", "-m", "nodeagent.runtime.layers", str(copied / _hex(digest)), digest]
            try:
                done = await run([*argv, diff_id, str(draft)], deadline=_UNPACK_DEADLINE)
            except ProgramTimeout as error:
                raise ImageFailure("ErrImagePull", f"failed to unpack image {ref!r}: {error}") from None
            if done.code != 0:
                raise ImageFailure("ErrImagePull", f"failed to unpack image {ref!r}: {done.words}")
            await asyncio.to_thread(draft.rename, target)
        self._unpacking.pop(diff_id, None)

    # ── what is known ────────────────────────────────────────────────────────────────────────────────────────

    def _name_file(self, ref: str) -> Path:
        return self._names / hashlib.sha256(ref.encode()).hexdigest()

    def _known(self, ref: str) -> Image | None:
        try:
            named = json.loads(self._name_file(ref).read_text())
            return self._load(str(named["image"]), ref, str(named["digest"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ImageFailure("ImageInspectError", f"failed to inspect image {ref!r}: {error}") from error

    def _by_digest(self, ref: str, digest: str) -> Image | None:
        repo_digest = f"{references.parse(ref).name}@{digest}"
        for path in self._names.iterdir():
            try:
                named = json.loads(path.read_text())
                if named["digest"] == repo_digest:
                    image = self._load(named["image"], ref, repo_digest)
                    self._name(ref, image.id, repo_digest)
                    return image
            except (OSError, ValueError, KeyError, TypeError, ImageFailure):
                # A damaged one is pulled again: that is its repair.
                continue
        return None

    def _load(self, id: str, ref: str, repo_digest: str) -> Image:
        try:
            path = self._configs / _hex(id)
            config = path.read_bytes()
            if _digest(config) != id:
                raise ValueError(f"the config's digest is {_digest(config)}")
            image = _image(id, ref, repo_digest, config)
            for layer in image.layers:
                if not (self.layers / _hex(layer)).is_dir():
                    raise ValueError(f"layer {layer} is missing")
            os.utime(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ImageFailure("ImageInspectError", f"failed to inspect image {ref!r}: {error}") from error
        return image

    def _publish(self, id: str, config: bytes, ref: str, repo_digest: str) -> None:
        _sync_directory(self.layers)
        _write(self._configs / _hex(id), config, self._tmp)
        self._name(ref, id, repo_digest)

    def _name(self, ref: str, id: str, repo_digest: str) -> None:
        text = json.dumps({"ref": ref, "image": id, "digest": repo_digest})
        _write(self._name_file(ref), text.encode(), self._tmp)

    def _all(self) -> list[tuple[Image, float]]:
        found = []
        for path in self._configs.iterdir():
            used = path.stat().st_mtime
            found.append((_image(f"sha256:{path.name}", "", "", path.read_bytes()), used))
        return found

    def _remove(self, id: str) -> None:
        images = {image.id: image for image, _used in self._all()}
        if id not in images:
            return
        for path in self._names.iterdir():
            if json.loads(path.read_text())["image"] == id:
                path.unlink()
        (self._configs / _hex(id)).unlink()
        shared = {layer for image in images.values() if image.id != id for layer in image.layers}
        for layer in set(images[id].layers) - shared:
            # Renamed first: a layer half deleted must not be found by its name.
            doomed = Path(tempfile.mkdtemp(prefix="gone-", dir=self._tmp))
            (self.layers / _hex(layer)).rename(doomed / "layer")
            shutil.rmtree(doomed)


def _hex(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise ValueError(f"{digest!r} is not a sha256 digest")
    return value


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _read_manifest(copied: Path, ref: str) -> tuple[str, list[str]]:
    """Digests of the config and of the layers' blobs, the lowest layer first."""
    manifest = json.loads((copied / "manifest.json").read_bytes())
    kind = manifest.get("mediaType", _MANIFESTS[1])
    if kind not in _MANIFESTS or manifest.get("schemaVersion") != 2:
        raise ImageFailure("ErrImagePull", f"failed to pull image {ref!r}: unsupported manifest type {kind!r}")
    blobs = [str(layer["digest"]) for layer in manifest["layers"]]
    if len(blobs) > _MAX_LAYERS:
        raise ImageFailure("ErrImagePull", f"failed to pull image {ref!r}: more than {_MAX_LAYERS} layers")
    for digest in blobs:
        _hex(digest)
    return str(manifest["config"]["digest"]), blobs


def _diff_ids(config: bytes) -> list[str]:
    found = [str(item) for item in json.loads(config)["rootfs"]["diff_ids"]]
    for diff_id in found:
        _hex(diff_id)
    return found


def _image(id: str, ref: str, repo_digest: str, config: bytes) -> Image:
    whole: dict[str, Any] = json.loads(config)
    said: dict[str, Any] = whole.get("config") or {}
    return Image(
        id=id, ref=ref, repo_digest=repo_digest,
        entrypoint=tuple(said.get("Entrypoint") or ()), cmd=tuple(said.get("Cmd") or ()),
        env=tuple(said.get("Env") or ()), user=said.get("User") or "", working_dir=said.get("WorkingDir") or "",
        layers=tuple(_diff_ids(config)), stop_signal=said.get("StopSignal") or "",
    )  # fmt: skip


def _write(path: Path, data: bytes, tmp: Path) -> None:
    fd, draft = tempfile.mkstemp(dir=tmp)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
    os.rename(draft, path)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
