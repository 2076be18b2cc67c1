"""Images of a few bytes that a test builds itself, entry by entry: also such as no tool would build."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Entry = tuple[tarfile.TarInfo, bytes]

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def file(name: str, data: bytes = b"", mode: int = 0o644) -> Entry:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    return info, data


def directory(name: str, mode: int = 0o755) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, mode
    return info, b""


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def device(name: str, major: int, minor: int, kind: bytes = tarfile.CHRTYPE) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.devmajor, info.devminor = kind, major, minor
    return info, b""


def busybox() -> list[list[Entry]]:
    """Layers that run: sh and sleep."""
    program = file("bin/busybox", Path("/usr/bin/busybox").read_bytes(), 0o755)
    return [[directory("bin"), program], [link("bin/sleep", "busybox"), link("bin/sh", "busybox")]]


def tar(entries: Sequence[Entry]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(slots=True)
class Packed:
    """An image as a registry serves it: the manifest's bytes and their type, the blobs by digest."""

    manifest: bytes
    kind: str
    config: str
    blobs: dict[str, bytes] = field(default_factory=dict)

    @property
    def layers(self) -> list[str]:
        return [found for found in self.blobs if found != self.config]


def pack(
    layers: Sequence[Sequence[Entry] | bytes], config: dict[str, Any] | None = None, *, docker: bool = False
) -> Packed:
    """An image of gzipped layers: OCI, or Docker's schema 2. Layers given as bytes are taken as tar archives."""
    vendor = "docker" if docker else "oci"
    layer_kind = "application/vnd.docker.image.rootfs.diff.tar.gzip" if docker else (
        "application/vnd.oci.image.layer.v1.tar+gzip")  # fmt: skip
    config_kind = "application/vnd.docker.container.image.v1+json" if docker else (
        "application/vnd.oci.image.config.v1+json")  # fmt: skip
    tars = [entries if isinstance(entries, bytes) else tar(entries) for entries in layers]
    whole = {"architecture": "amd64", "os": "linux", "config": config or {}, "vendor": vendor,
             "rootfs": {"type": "layers", "diff_ids": [digest(data) for data in tars]}}  # fmt: skip
    made = Packed(b"", DOCKER_MANIFEST if docker else MANIFEST, "")

    def put(data: bytes, kind: str) -> dict[str, Any]:
        made.blobs[digest(data)] = data
        return {"mediaType": kind, "digest": digest(data), "size": len(data)}

    held = put(json.dumps(whole).encode(), config_kind)
    made.config = held["digest"]
    stored = [put(gzip.compress(data, mtime=0), layer_kind) for data in tars]
    manifest = {"schemaVersion": 2, "mediaType": made.kind, "config": held, "layers": stored}
    made.manifest = json.dumps(manifest).encode()
    return made


def write_layout(target: Path, packed: Packed) -> None:
    """An OCI layout with one image."""
    blobs = target / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for name, data in {**packed.blobs, digest(packed.manifest): packed.manifest}.items():
        (blobs / name.partition(":")[2]).write_bytes(data)
    index = {"mediaType": packed.kind, "digest": digest(packed.manifest), "size": len(packed.manifest)}
    (target / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [index]}))
    (target / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
