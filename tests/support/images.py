"""Small images made of Debian packages, so that tests need no registry but Debian's own.

An image is an OCI layout in `.cache/images`, kept between runs: the packages are downloaded once.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "images"

NGINX_CONF = """daemon off;
user root;
error_log stderr;
pid /tmp/nginx.pid;
events {}
http {
  default_type text/html;
  access_log off;
  server { listen 80; root /usr/share/nginx/html; }
}
"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """An image: layers of Debian packages, then one of files, and its config."""

    name: str
    layers: Sequence[Sequence[str]]
    files: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


LIBC = ("libc6", "libcrypt1", "libpcre2-8-0", "libgcc-s1")
NGINX = Recipe(
    "nginx",
    [LIBC, ("nginx", "libssl3", "zlib1g")],
    files={
        "etc/nginx/nginx.conf": NGINX_CONF,
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/:/bin/false\n",
        "etc/group": "root:x:0:\nwww-data:x:33:\n",
        "var/log/nginx/.keep": "",
        "var/lib/nginx/.keep": "",
        "tmp/.keep": "",
        "usr/share/nginx/html/index.html": "<h1>welcome</h1>\n",
    },
    config={"Cmd": ["/usr/sbin/nginx"], "ExposedPorts": {"80/tcp": {}}},
)
CENTOS = Recipe(
    "centos",
    [LIBC, ("bash", "libtinfo6", "coreutils", "libselinux1", "libacl1", "libattr1", "libgmp10")],
    config={"Cmd": ["/bin/bash"]},
)
BUSYBOX = Recipe(
    "busybox",
    [("busybox-static",)],
    links={f"bin/{applet}": "busybox" for applet in ("sh", "chmod", "sleep", "cat", "echo", "httpd", "nc", "true")},
    config={"Cmd": ["/bin/sh"]},
)


def layout(recipe: Recipe) -> Path:
    """The OCI layout of an image, tag `latest`; made where it is not in the cache."""
    key = hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]
    target = CACHE / f"{recipe.name}-{key}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two processes of a test run may be the first to want it
        if not (target / "index.json").exists():
            shutil.rmtree(target, ignore_errors=True)
            _build(recipe, target)
    return target


def _build(recipe: Recipe, target: Path) -> None:
    blobs = target / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layers, diffs = [], []
    for content in [*(_packages_tar(packages) for packages in recipe.layers), _files_tar(recipe)]:
        diffs.append(f"sha256:{hashlib.sha256(content).hexdigest()}")
        packed = gzip.compress(content, 1, mtime=0)
        layers.append(_blob(blobs, packed, "application/vnd.oci.image.layer.v1.tar+gzip"))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": dict(recipe.config),
        "rootfs": {"type": "layers", "diff_ids": diffs},
    }
    described = _blob(blobs, json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json")
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described,
        "layers": layers,
    }
    entry = _blob(blobs, json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (target / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (target / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


def _blob(blobs: Path, content: bytes, media_type: str) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}


def _packages_tar(packages: Sequence[str]) -> bytes:
    """The files of Debian packages, documentation left out, as one layer."""
    root = CACHE / "unpacked" / "-".join(packages)
    if not root.exists():
        staging = root.with_suffix(".new")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        for package in packages:
            _unpack(package, staging)
        shutil.rmtree(staging / "usr/share/doc", ignore_errors=True)
        shutil.rmtree(staging / "usr/share/locale", ignore_errors=True)
        shutil.rmtree(staging / "usr/share/man", ignore_errors=True)
        staging.rename(root)
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(root.rglob("*")):
            tar.add(path, str(path.relative_to(root)), recursive=False, filter=_as_root)
    return output.getvalue()


def _unpack(package: str, into: Path) -> None:
    debs = CACHE / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    if not list(debs.glob(f"{package}_*.deb")):
        # The sandboxed user of apt may not write here; root downloads itself.
        argv = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3", package]
        subprocess.run(argv, cwd=debs, check=True, capture_output=True, timeout=120)
    (deb,) = debs.glob(f"{package}_*.deb")
    subprocess.run(["dpkg-deb", "-x", deb, into], check=True, capture_output=True, timeout=60)


def _files_tar(recipe: Recipe) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, text in recipe.files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text.encode()), 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))
        for name, target in recipe.links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return output.getvalue()


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mtime = 0
    return entry
