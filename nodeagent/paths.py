"""Every path that the agent uses, in one place. Two roots: what outlives a boot, and what does not."""

from __future__ import annotations

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
        """Config maps and nodes as last seen, one file each; services.log."""
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
