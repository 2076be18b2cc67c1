"""The kernel that VMs boot: Debian's cloud kernel, downloaded by apt, with an initrd of our own that finds the root.

Everything is kept in `.cache/vm`, each step under its final name only when it is whole, so that a run that was cut
goes on where it stopped. Raises Unavailable, with what to do, where a program or the package cannot be had.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "vm"
HERE = Path(__file__).resolve().parent
VIRTIOFSD = (Path("/usr/libexec/virtiofsd"), Path("/usr/lib/qemu/virtiofsd"))
_PROGRAMS = ("qemu-system-x86_64", "depmod", "cpio", "busybox", "dpkg-deb", "apt-get")
_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "virtio_console", "virtiofs", "overlay")
_METAPACKAGE = "linux-image-cloud-amd64"


class Unavailable(Exception):
    """A VM cannot be had on this machine; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """image and initrd for QEMU; modules: the directory that belongs at /lib/modules."""

    release: str
    image: Path
    initrd: Path
    modules: Path


def virtiofsd() -> Path:
    """The daemon that serves a directory to a guest."""
    for path in VIRTIOFSD:
        if path.exists():
            return path
    raise Unavailable("virtiofsd is missing: scripts/setup-vm")


def kernel() -> Kernel:
    """The kernel, from the cache or downloaded."""
    if os.uname().machine != "x86_64":
        raise Unavailable(f"VMs are x86_64, this machine is {os.uname().machine}")
    missing = [program for program in _PROGRAMS if not _which(program)]
    if missing:
        raise Unavailable(f"{', '.join(missing)} missing: scripts/setup-vm")
    with alone("kernel"):
        kept = next(CACHE.glob("kernel-*/boot/vmlinuz-*"), None)
        tree = kept.parents[1] if kept else _unpack(_download())
        image = next(tree.glob("boot/vmlinuz-*"))
        release = image.name.removeprefix("vmlinuz-")
        modules = tree / "lib" / "modules"
        return Kernel(release, image, _initrd(tree, modules / release), modules)


@contextlib.contextmanager
def alone(what: str) -> Iterator[None]:
    """While something of the cache is looked for and made: two processes of a test run may be the first to want it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(*argv: str | Path, cwd: Path | None = None, seconds: float = 300) -> str:
    """A program's output; Unavailable with its last words where it fails."""
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{argv[0]} did not end within {seconds:g} s") from None
    if done.returncode:
        raise Unavailable(f"{' '.join(map(str, argv))}: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _download() -> Path:
    package = _package()
    if not package:  # a machine whose package lists were never fetched, or are of another day
        run("apt-get", "update", "-q")
        package = _package()
    if not package:
        raise Unavailable(f"apt knows no {_METAPACKAGE}: Debian's package archive is needed")
    partial = CACHE / "download"
    partial.mkdir(exist_ok=True)
    try:
        run("apt-get", "download", "-q", package, cwd=partial)
    except Unavailable:
        run("apt-get", "update", "-q")
        run("apt-get", "download", "-q", package, cwd=partial)
    return next(partial.glob("*.deb"))


def _package() -> str:
    listed = run("apt-cache", "depends", "--no-recommends", _METAPACKAGE).splitlines()
    names = [line.split()[-1] for line in listed if "Depends: linux-image" in line]
    return names[0] if names else ""


def _unpack(deb: Path) -> Path:
    partial = CACHE / "unpacked"
    shutil.rmtree(partial, ignore_errors=True)
    run("dpkg-deb", "-x", deb, partial)
    release = next(partial.glob("lib/modules/*")).name
    depmod = _which("depmod")
    assert depmod is not None
    run(depmod, "-b", partial, release)
    target = CACHE / f"kernel-{release}"
    partial.rename(target)
    shutil.rmtree(deb.parent)
    return target


def _initrd(tree: Path, modules: Path) -> Path:
    init = HERE / "init.sh"
    key = hashlib.sha256(init.read_bytes() + repr(_MODULES).encode()).hexdigest()[:12]
    target = tree / f"initrd-{key}"
    if not target.exists():
        partial = tree / f"initrd-{os.getpid()}"
        _populate(partial, init, modules)
        names = run("find", ".", cwd=partial)
        packed = subprocess.run(
            ["cpio", "-o", "-H", "newc", "--quiet"], cwd=partial, input=names.encode(), capture_output=True, check=True
        )
        shutil.rmtree(partial)
        partial.write_bytes(gzip.compress(packed.stdout, 1))
        partial.rename(target)
    return target


def _populate(root: Path, init: Path, modules: Path) -> None:
    for name in ("bin", "modules", "proc", "sys", "dev", "lower", "scratch", "new"):
        (root / name).mkdir(parents=True)
    busybox = _which("busybox")
    assert busybox is not None
    shutil.copy(busybox, root / "bin" / "busybox")
    shutil.copy(init, root / "init")
    (root / "init").chmod(0o755)
    order = module_order((modules / "modules.dep").read_text(), _MODULES)
    for path in order:
        shutil.copy(modules / path, root / "modules")
    (root / "order").write_text("".join(f"{Path(path).name}\n" for path in order))


def module_order(dependencies: str, names: tuple[str, ...]) -> list[str]:
    """The files of these modules, each after what it depends on; names that are built in are left out."""
    table: dict[str, tuple[str, list[str]]] = {}
    for line in dependencies.splitlines():
        path, _, needs = line.partition(":")
        table[Path(path).name.split(".")[0].replace("-", "_")] = (path, needs.split())
    order: list[str] = []
    for name in names:
        file, needed = table.get(name, ("", []))
        # modules.dep lists what is needed nearest first.
        order += [item for item in [*reversed(needed), file] if item and item not in order]
    return order
