"""The capabilities of a container: the default set, and what a securityContext adds and drops. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

ALL = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
"""In the order of their numbers (linux/capability.h)."""

DEFAULT = (
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
    "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
)  # fmt: skip
"""What containerd gives, but NET_RAW: raw sockets let one pod speak in another's name on the bridge."""


def from_mask(mask: int) -> tuple[str, ...]:
    """The names (CAP_...) of the bits of a mask as /proc/<pid>/status shows it."""
    return tuple(f"CAP_{name}" for bit, name in enumerate(ALL) if mask >> bit & 1)


def _bare(names: Iterable[str]) -> list[str]:
    return [name.upper().removeprefix("CAP_") for name in names]


def granted(add: Sequence[str], drop: Sequence[str], privileged: bool, available: Sequence[str]) -> list[str]:
    """The set (CAP_..., sorted) of a container. ALL means what the agent itself has: more cannot be given."""
    if privileged:
        return sorted(available)
    adds, drops = _bare(add), _bare(drop)
    names = set(_bare(available)) if "ALL" in adds else set(DEFAULT) & set(_bare(available))
    if "ALL" in drops:
        names = set()
    names |= {name for name in adds if name != "ALL"}
    names -= set(drops)
    return sorted(f"CAP_{name}" for name in names)
