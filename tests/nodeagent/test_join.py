"""Joining: whom the node trusts, what it writes, and what it never sends."""

from __future__ import annotations

import contextlib
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL

from nodeagent import certificates, join
from podplane.tls import certificate_hash
from podplane.v1.session_pb2 import JoinResponse
from tests.support.certificates import self_signed


@pytest.fixture
def server() -> Iterator[tuple[str, bytes, list[bytes]]]:
    """A TLS server that shows one certificate to one caller and notes what it is sent."""
    certificate, key = self_signed("somebody")
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(x509.load_pem_x509_certificate(certificate))
    context.use_privatekey(key)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)
    received: list[bytes] = []

    def serve() -> None:
        plain, _ = listener.accept()
        with plain, contextlib.suppress(OSError, SSL.Error):
            plain.settimeout(None)
            secure = SSL.Connection(context, plain)
            secure.set_accept_state()
            secure.do_handshake()
            received.append(secure.recv(1000))

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}", certificate, received
    thread.join(5)
    listener.close()
    assert not thread.is_alive()


def test_a_server_without_the_authority_of_the_token_is_sent_nothing(
    server: tuple[str, bytes, list[bytes]], tmp_path: Path
) -> None:
    address, _, received = server
    with pytest.raises(join.JoinFailure, match="cannot trust the server"):
        join.join(tmp_path, address, "n1", f"{'0' * 64}.id.secret")
    assert received in ([], [b""])
    assert not list(tmp_path.iterdir())


def test_the_chain_that_a_server_shows_is_fetched(server: tuple[str, bytes, list[bytes]]) -> None:
    address, certificate, _ = server
    assert [certificate_hash(pem) for pem in join.fetch_chain(address)] == [certificate_hash(certificate)]


def test_nobody_there_is_said_with_the_address(tmp_path: Path) -> None:
    with pytest.raises(join.JoinFailure, match=r"127\.0\.0\.1:1"):
        join.join(tmp_path, "127.0.0.1:1", "n1", f"{'0' * 64}.id.secret")


@pytest.mark.parametrize("token", ["", "abc", "abc.id.secret", f"{'0' * 64}.id"])
def test_a_token_of_another_form_is_refused_and_not_repeated(token: str, tmp_path: Path) -> None:
    with pytest.raises(join.JoinFailure) as failure:
        join.join(tmp_path, "127.0.0.1:1", "n1", token)
    assert not token or token not in str(failure.value)


def test_an_identity_is_replaced_whole_and_its_key_is_roots_alone(tmp_path: Path) -> None:
    for name in ("first", "second"):
        certificate, key = self_signed(name)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        answer = JoinResponse(certificate=certificate.decode(), certificateAuthority=certificate.decode())
        join.keep(tmp_path, "n1", "10.0.0.1:7444", private, answer)
    identity = certificates.read(tmp_path)
    assert identity.certificate == certificate
    assert (tmp_path / "key.pem").read_bytes() == private
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    assert len(list(tmp_path.glob("identity-*"))) == 1
    assert identity.not_before < identity.renew_at < identity.not_after


def test_a_request_names_the_node_as_the_control_plane_expects() -> None:
    _, pem = join.make_request("n1")
    subject = x509.load_pem_x509_csr(pem.encode()).subject.rfc4514_string()
    assert "CN=system:node:n1" in subject
    assert "O=system:nodes" in subject
