"""What registries say of an image: manifests, indexes and configs, OCI's and Docker's schema 2. Pure.

Everything read here comes from outside: what is not exactly as specified raises Malformed, in words for people.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nodeagent.runtime.image import Image

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""uname's machine -> the name in manifests."""
MAX_LAYERS = 127
_MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
)
_INDEXES = (
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
)
_CONFIGS = (
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.oci.image.config.v1+json",
)
_MAX_LAYER = 1 << 40


class Malformed(ValueError):
    """It is not what it should be."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A layer as the registry holds it. size: bytes."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image's parts, the lowest layer first."""

    config: str
    layers: tuple[Blob, ...]


def hexadecimal(digest: str) -> str:
    """The value of a sha256 digest, fit for a file name."""
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise Malformed(f"{digest[:100]!r} is not a sha256 digest")
    return value


def digest_of(data: bytes, like: str = "sha256") -> str:
    """The digest of some bytes; `like`: a digest whose algorithm is meant."""
    algorithm = like.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def verify(data: bytes, digest: str, what: str) -> None:
    """Raise Malformed unless `data` has the digest."""
    found = digest_of(data, digest)
    if found != digest:
        raise Malformed(f"digest of the {what} is {found}, expected {digest}")


def is_index(data: bytes) -> bool:
    """Whether it is a list of manifests, one for each platform."""
    whole = _object(data, "manifest")
    return whole.get("mediaType") in _INDEXES or ("mediaType" not in whole and "manifests" in whole)


def choose(index: bytes, architecture: str) -> str:
    """The digest of the manifest for this node's platform."""
    offered = []
    for entry in _list(_object(index, "manifest list"), "manifests"):
        platform = entry.get("platform") or {}
        if (platform.get("os"), platform.get("architecture")) == ("linux", architecture):
            digest = str(entry.get("digest"))
            hexadecimal(digest)
            return digest
        offered.append(f"{platform.get('os')}/{platform.get('architecture')}")
    known = ", ".join(sorted(set(offered))) or "none"
    raise Malformed(f"no match for platform linux/{architecture} in the manifest list, which has: {known}"[:500])


def read_manifest(data: bytes) -> Manifest:
    """Config and layers of an image."""
    whole = _object(data, "manifest")
    kind = whole.get("mediaType", _MANIFESTS[1])
    if kind not in _MANIFESTS or whole.get("schemaVersion") != 2:
        raise Malformed(f"unsupported manifest type {kind!r}, schema version {whole.get('schemaVersion')!r}")
    config = whole.get("config") or {}
    if config.get("mediaType") not in _CONFIGS:
        raise Malformed(f"not a container image: its config is of type {config.get('mediaType')!r}")
    layers = _list(whole, "layers")
    if len(layers) > MAX_LAYERS:
        raise Malformed(f"more than {MAX_LAYERS} layers")
    hexadecimal(str(config.get("digest")))
    return Manifest(str(config["digest"]), tuple(_blob(layer) for layer in layers))


def _blob(layer: Mapping[str, Any]) -> Blob:
    kind, digest, size = str(layer.get("mediaType", "")), str(layer.get("digest")), layer.get("size")
    if kind.endswith("+encrypted"):
        raise Malformed("encrypted layers are not supported")
    hexadecimal(digest)
    if not isinstance(size, int) or not 0 <= size <= _MAX_LAYER:
        raise Malformed(f"layer {digest} has an impossible size: {size!r}")
    return Blob(digest, size)


def diff_ids(config: bytes) -> tuple[str, ...]:
    """The digests of the uncompressed layers, the lowest first."""
    rootfs = _object(config, "config").get("rootfs")
    found = tuple(str(item) for item in (rootfs.get("diff_ids") if isinstance(rootfs, dict) else None) or ())
    for diff_id in found:
        hexadecimal(diff_id)
    return found


def check_platform(config: bytes, architecture: str) -> None:
    """Raise Malformed for an image of another platform."""
    whole = _object(config, "config")
    found = whole.get("os") or "linux", whole.get("architecture") or architecture
    if found != ("linux", architecture):
        raise Malformed(f"the image is for {found[0]}/{found[1]}, this node is linux/{architecture}"[:200])


def read_image(id: str, ref: str, repo_digest: str, config: bytes) -> Image:
    """The image that a config describes."""
    said = _object(config, "config").get("config") or {}
    if not isinstance(said, dict):
        raise Malformed("config is not an object")
    return Image(
        id=id,
        ref=ref,
        repo_digest=repo_digest,
        entrypoint=_strings(said, "Entrypoint"),
        cmd=_strings(said, "Cmd"),
        env=_strings(said, "Env"),
        user=str(said.get("User") or ""),
        working_dir=str(said.get("WorkingDir") or ""),
        layers=diff_ids(config),
        stop_signal=str(said.get("StopSignal") or ""),
    )


def _strings(said: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = said.get(name) or ()
    if not isinstance(found, list | tuple) or not all(isinstance(item, str) for item in found):
        raise Malformed(f"{name} in the config is not a list of strings")
    return tuple(found)


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the {what} is not JSON: {error}"[:200]) from None
    if not isinstance(found, dict):
        raise Malformed(f"the {what} is not a JSON object")
    return found


def _list(whole: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = whole.get(name)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise Malformed(f"{name} is not a list of objects")
    return found
