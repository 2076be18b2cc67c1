"""Credentials: a node's certificate is good until its end, however old the connection is."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from controlplane.api.authn import Authenticator
from controlplane.pki import Authority
from controlplane.tokens import Tokens
from podplane.errors import Unauthenticated
from tests.controlplane.plane import node_request


@dataclass
class Shown:
    """What a peer shows."""

    certificate: str
    authorization: str = ""

    def invocation_metadata(self) -> list[tuple[str, str | bytes]]:
        return [("authorization", self.authorization)] if self.authorization else []

    def auth_context(self) -> Mapping[str, list[bytes]]:
        return {"x509_pem_cert": [self.certificate.encode()]}


def certificate(tmp_path: Path, node: str, life: datetime.timedelta) -> str:
    _, request = node_request(f"system:node:{node}")
    return Authority.create(tmp_path / "pki").sign_node(request, node, life)


def test_a_certificate_counts_before_a_token(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens")
    shown = Shown(certificate(tmp_path, "node-1", datetime.timedelta(hours=1)))
    shown.authorization = f"Bearer {tokens.create('bob', 'admin', 60)}"
    found = Authenticator(tokens).identify(shown)
    assert found is not None
    assert (found.username, found.node, found.role) == ("system:node:node-1", "node-1", "")


def test_a_certificate_that_has_expired_is_refused_on_an_old_connection_too(tmp_path: Path) -> None:
    shown = Shown(certificate(tmp_path, "node-1", datetime.timedelta(seconds=-1)))
    with pytest.raises(Unauthenticated, match="has expired"):
        Authenticator(Tokens(tmp_path / "tokens")).identify(shown)
