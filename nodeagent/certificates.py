"""The node's identity on disk: key, certificate, authority, and where the sessions are.

Files: state/pki/{key,cert,ca}.pem and joined.json, links into the current identity; written by join.py alone, in a way
that a crash leaves either the old identity or the new one. Fails with NotJoined.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from podplane.tls import read_pem

CURRENT = "current"


class NotJoined(Exception):
    """This node has no identity that can be used."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What the agent shows, and whom it trusts. PEM."""

    node: str
    address: str
    """host:port of NodeSessions."""
    authority: bytes
    certificate: bytes
    key: bytes = field(repr=False)
    not_before: float
    not_after: float

    @property
    def renew_at(self) -> float:
        """Two thirds of the certificate's life, in seconds since the epoch."""
        return self.not_before + (self.not_after - self.not_before) * 2 / 3


def read(pki: Path) -> Identity:
    """The identity; NotJoined says what is missing."""
    pki = pki / CURRENT
    try:
        joined = json.loads((pki / "joined.json").read_text())
        return Identity(
            node=joined["node"],
            address=joined["address"],
            authority=read_pem(pki / "ca.pem"),
            certificate=read_pem(pki / "cert.pem"),
            key=read_pem(pki / "key.pem"),
            not_before=float(joined["notBefore"]),
            not_after=float(joined["notAfter"]),
        )
    except (OSError, ValueError, KeyError) as error:
        raise NotJoined(f"this node has not joined a cluster: {error}") from None


def expired(identity: Identity, now: float) -> bool:
    """Whether the certificate has ended: only joining again helps."""
    return now >= identity.not_after


def until(identity: Identity) -> str:
    """When the certificate ends, as text."""
    return datetime.fromtimestamp(identity.not_after, UTC).isoformat()
