"""The disk of a VM with systemd as PID 1: this machine's Debian release, made by mmdebstrap, kept in the cache.

A test gets a copy of its own (sparse, a second or so), so that what its VM writes ends with it.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from tests.vm.kernel import CACHE, Unavailable, alone, kernel, run
from tests.vm.machine import CHECKOUT

PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "udev", "kmod", "iproute2", "python3", "procps", "util-linux", "mount"),
    *("crun", "runc", "conmon", "skopeo", "iptables", "nftables", "conntrack", "ca-certificates"),
    *("golang-github-containers-common", "busybox-static", "nfs-kernel-server", "nfs-common"),
)
"""What a node needs (README.md), and what the tests use beside it."""
SIZE = "3G"
_AGENT_UNIT = """[Unit]
Description=Commands from the host
DefaultDependencies=no
After=systemd-udevd.service systemd-tmpfiles-setup-dev.service
[Service]
ExecStart=/usr/bin/python3 -IS /usr/local/lib/vm-agent.py
Restart=always
[Install]
WantedBy=multi-user.target
"""
_CHECKOUT_UNIT = """[Unit]
Description=The checkout, as the host has it
DefaultDependencies=no
Before=local-fs.target
[Mount]
What=checkout
Where={where}
Type=virtiofs
Options=ro
[Install]
WantedBy=local-fs.target
"""


def disk(target: Path) -> Path:
    """A new disk at target, a bootable copy of the cached one."""
    run("cp", "--sparse=always", _base(), target)
    return target


def _base() -> Path:
    codename = _codename()
    recipe = (
        PACKAGES,
        SIZE,
        _AGENT_UNIT,
        _CHECKOUT_UNIT,
        kernel().release,
        Path(__file__).with_name("agent.py").read_text(),
    )
    key = hashlib.sha256(repr((codename, recipe)).encode()).hexdigest()[:12]
    base = CACHE / f"disk-{key}"
    with alone("disk"):
        if not base.exists():
            for old in CACHE.glob("disk-*"):
                old.unlink()
            _format(_tree(_bootstrap(codename)), base)
    return base


def _codename() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    raise Unavailable("/etc/os-release names no VERSION_CODENAME: the VM's disk is made of this machine's release")


def _bootstrap(codename: str) -> Path:
    """The tar of a minimal system with the packages."""
    key = hashlib.sha256(repr((codename, PACKAGES)).encode()).hexdigest()[:12]
    tar = CACHE / f"system-{key}.tar"
    if not tar.exists():
        if shutil.which("mmdebstrap") is None:
            raise Unavailable("mmdebstrap missing: scripts/setup-vm")
        partial = CACHE / "system-partial.tar"
        run(
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            f"--include={','.join(PACKAGES)}",
            codename,
            partial,
            seconds=600,
        )
        partial.rename(tar)
    return tar


def _tree(tar: Path) -> Path:
    root = CACHE / "tree"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    excluded = [f"--exclude=./usr/share/{name}/*" for name in ("doc", "locale", "man")]
    run("tar", "-x", "-f", tar, "-C", root, *excluded)
    shutil.copytree(kernel().modules, root / "usr/lib/modules", symlinks=True, dirs_exist_ok=True)
    shutil.copy(Path(__file__).with_name("agent.py"), root / "usr/local/lib/vm-agent.py")
    (root / "etc/machine-id").write_text("")
    (root / CHECKOUT.relative_to("/")).mkdir(parents=True, exist_ok=True)
    _unit(root, "vm-agent.service", _AGENT_UNIT, "multi-user.target")
    where = str(CHECKOUT)
    name = run("systemd-escape", "--path", "--suffix=mount", where).strip()
    _unit(root, name, _CHECKOUT_UNIT.format(where=where), "local-fs.target")
    for unneeded in ("serial-getty@ttyS0", "getty@tty1", "nfs-server", "apt-daily.timer", "systemd-timesyncd"):
        unit = unneeded if "." in unneeded else f"{unneeded}.service"
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    return root


def _unit(root: Path, name: str, text: str, wanted_by: str) -> None:
    units = root / "etc/systemd/system"
    (units / name).write_text(text)
    wants = units / f"{wanted_by}.wants"
    wants.mkdir(exist_ok=True)
    (wants / name).symlink_to(f"../{name}")


def _format(root: Path, base: Path) -> None:
    partial = CACHE / "disk-partial"
    partial.unlink(missing_ok=True)
    run("truncate", "-s", SIZE, partial)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", root, partial)
    shutil.rmtree(root)
    partial.rename(base)
