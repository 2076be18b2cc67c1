"""A real registry on loopback, filled with tiny images that the tests build themselves."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Entry = tuple[tarfile.TarInfo, bytes]


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


def tar(entries: Sequence[Entry]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def write_layout(target: Path, layers: Sequence[Sequence[Entry]], config: dict[str, Any] | None = None) -> None:
    """An OCI layout with one image."""
    blobs = target / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, kind: str) -> dict[str, Any]:
        (blobs / digest(data).partition(":")[2]).write_bytes(data)
        return {"mediaType": kind, "digest": digest(data), "size": len(data)}

    tars = [tar(entries) for entries in layers]
    stored = [put(gzip.compress(data, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip") for data in tars]
    whole = {"architecture": "amd64", "os": "linux", "config": config or {},
             "rootfs": {"type": "layers", "diff_ids": [digest(data) for data in tars]}}  # fmt: skip
    held = put(json.dumps(whole).encode(), "application/vnd.oci.image.config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": held, "layers": stored}  # fmt: skip
    index = put(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    (target / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [index]}))
    (target / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


@dataclass
class Registry:
    """A registry that runs; `conf` is a registries.conf that permits it without TLS."""

    address: str
    storage: Path
    conf: Path
    base: Path
    process: subprocess.Popen[bytes]

    def push(self, name: str, layers: Sequence[Sequence[Entry]], config: dict[str, Any] | None = None) -> str:
        """Build and push an image; returns its full reference."""
        layout = self.base / f"layout-{time.monotonic_ns()}"
        write_layout(layout, layers, config)
        target = f"{self.address}/{name}"
        argv = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{target}"]
        subprocess.run(argv, check=True, capture_output=True, timeout=60)
        return target

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextlib.contextmanager
def serving(base: Path) -> Iterator[Registry]:
    port = free_port()
    config = {"version": "0.1", "storage": {"filesystem": {"rootdirectory": str(base / "storage")}},
              "http": {"addr": f"127.0.0.1:{port}"}, "log": {"level": "error"}}  # fmt: skip
    (base / "registry.yml").write_text(json.dumps(config))
    conf = base / "registries.conf"
    conf.write_text(f'[[registry]]\nlocation = "127.0.0.1:{port}"\ninsecure = true\n')
    with (base / "registry.log").open("wb") as log:
        argv = ["docker-registry", "serve", str(base / "registry.yml")]
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    registry = Registry(f"127.0.0.1:{port}", base / "storage", conf, base, process)
    try:
        _answers(port, process)
        yield registry
    finally:
        registry.stop()


def _answers(port: int, process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.02)
