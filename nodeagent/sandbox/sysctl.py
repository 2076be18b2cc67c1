"""Kernel settings: those of the calling thread's namespaces, by name. sysctls.py says which of them a pod may set."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

_INTERFACES = Path("/proc/sys/net/ipv4/conf")


def _path(name: str) -> Path:
    """A dot in the name of an interface is written as a slash, as sysctl(8) has it."""
    return Path("/proc/sys", *(part.replace("/", ".") for part in name.split(".")))


def forwarding() -> list[str]:
    """net.ipv4.ip_forward, and after it what the kernel sets anew with it, whatever it was: inet_forward_change()."""
    interfaces = sorted(path.name.replace(".", "/") for path in _INTERFACES.iterdir() if path.name != "all")
    each = [f"net.ipv4.conf.{name}.forwarding" for name in interfaces]
    return ["net.ipv4.ip_forward", "net.ipv4.conf.all.accept_redirects", *each]


def has_interface(name: str) -> bool:
    return (_INTERFACES / name).exists()


def exists(name: str) -> bool:
    """Whether the kernel has it now: a module's are there while it is loaded."""
    return _path(name).exists()


def read(name: str) -> str:
    return _path(name).read_text().strip()


def write(name: str, value: str) -> None:
    """Set it where it differs. Raises OSError naming what was asked."""
    path = _path(name)
    if path.read_text().strip() == value:
        return
    try:
        path.write_text(value)
    except OSError as error:
        raise OSError(error.errno, f"set {name} to {value!r}: {error.strerror}") from None


def save(path: Path, names: Iterable[str]) -> None:
    """Keep the present values for restore(), in this order, unless an earlier run did already."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torn = path.with_suffix(".new")
        torn.write_text(json.dumps({name: read(name) for name in names}))
        torn.rename(path)


def restore(path: Path) -> None:
    """Give back what save() kept; nothing to do where it did not, nor for an interface that is gone."""
    if path.exists():
        for name, value in json.loads(path.read_text()).items():
            with contextlib.suppress(FileNotFoundError):
                write(name, value)
        path.unlink()
