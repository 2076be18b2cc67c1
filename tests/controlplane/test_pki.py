"""The certificate authority: what it signs, refuses and keeps."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from controlplane import pki
from controlplane.pki import Authority
from podplane.errors import Invalid
from podplane.tls import certificates_of
from tests.controlplane.plane import node_request


def leaf(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def test_the_authority_is_made_once(tmp_path: Path) -> None:
    first, again = Authority.create(tmp_path), Authority.create(tmp_path)
    assert (first.certificate, first.hash) == (again.certificate, again.hash)
    certificate = leaf(first.certificate)
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days >= 3650


def test_the_server_certificate_is_kept_while_it_holds_every_name(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)
    first = authority.server_identity(("localhost", "127.0.0.1"))
    assert authority.server_identity(("localhost",)) == first
    more = authority.server_identity(("localhost", "192.0.2.1"))
    assert more != first
    names = leaf(more.chain).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["localhost", "192.0.2.1"]
    assert certificates_of(more.chain)[1].encode() == authority.certificate


def test_the_server_certificate_is_made_anew_before_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority.create(tmp_path)
    first = authority.server_identity(("localhost",))
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=340)
    monkeypatch.setattr(pki, "_now", lambda: later)
    assert authority.server_identity(("localhost",)) != first


def test_a_nodes_certificate_is_for_a_client_and_a_day(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path)
    _, request = node_request("system:node:node-1")
    certificate = leaf(authority.sign_node(request, "node-1").encode())
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == datetime.timedelta(hours=24, minutes=5)
    certificate.verify_directly_issued_by(leaf(authority.certificate))


@pytest.mark.parametrize("request_text", ["", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", "nonsense"])
def test_what_is_no_request_is_invalid(tmp_path: Path, request_text: str) -> None:
    with pytest.raises(Invalid, match=r"PKCS#10"):
        Authority.create(tmp_path).sign_node(request_text, "node-1")
