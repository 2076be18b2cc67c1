"""Every path that the agent uses, in one place. Two roots: what outlives a boot, and what does not."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Paths:
    """state: /var/lib/podplane/nodeagent (0700). run: /run/podplane (tmpfs): sandboxes, bundles, secrets."""

    state: Path
    run: Path

    @property
    def pki(self) -> Path:
        """key.pem (0600), cert.pem, ca.pem and joined.json (where the sessions are)."""
        return self.state / "pki"

    @property
    def pods(self) -> Path:
        """The specs of this node's pods, one file a uid."""
        return self.state / "pods"

    @property
    def objects(self) -> Path:
        """Config maps, services and nodes as last seen."""
        return self.state / "objects"

    @property
    def secrets(self) -> Path:
        """Secrets as last seen: tmpfs only."""
        return self.run / "objects"

    @property
    def cluster(self) -> Path:
        """Which cluster this node belongs to, and how far it has seen it."""
        return self.state / "cluster.json"

    @property
    def durable_journal(self) -> Path:
        return self.state / "journal" / "durable.log"

    @property
    def boot_journal(self) -> Path:
        return self.run / "journal" / "boot.log"

    @property
    def lock(self) -> Path:
        return self.state / "agent.lock"

    @property
    def logs(self) -> Path:
        """<namespace>_<pod>_<uid>/<container>/<attempt>.log"""
        return self.state / "logs"

    def make(self) -> None:
        """Make both roots and what the agent itself keeps in them, readable by root alone."""
        for directory in (
            self.state,
            self.run,
            self.pki,
            self.pods,
            self.objects,
            self.secrets,
            self.durable_journal.parent,
            self.boot_journal.parent,
        ):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.state.chmod(0o700)
        self.run.chmod(0o700)


def replace(path: Path, data: bytes, mode: int = 0o600, *, synced: bool = False) -> None:
    """Put `data` at `path` whole or not at all; `synced` for what must survive power loss. Raises OSError."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        _write_all(descriptor, data)
        if synced:
            os.fsync(descriptor)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
    if synced:
        sync(path.parent)


def _write_all(descriptor: int, data: bytes) -> None:
    # On a disk that is nearly full the first write takes a part, and only the next one fails.
    written = 0
    while written < len(data):
        written += os.write(descriptor, data[written:])


def sync(path: Path) -> None:
    """What is in a file or directory is on the disk when this returns. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
