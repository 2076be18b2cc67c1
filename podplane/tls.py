"""TLS as both daemons and podctl use it: key material from files, gRPC credentials, the hash of an authority.

Owns no keys and writes none. TLS 1.2 is the floor (gRPC's own). Fails with ValueError or OSError that names the
file; a private key's bytes are in no message.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Sequence
from pathlib import Path

import grpc

MAX_MESSAGE = 4 * 1024 * 1024
"""Bytes of the largest gRPC message, both ways; lists are paged below it."""

NODE_ORGANIZATION = "system:nodes"
NODE_PREFIX = "system:node:"

_PEM_BEGIN, _PEM_END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    # Finds a dead control plane in 15 s; the server permits pings this often.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
)


def token_channel_credentials(authority: bytes, token: str | None) -> grpc.ChannelCredentials:
    """Credentials of a person or program: trust `authority` (PEM), send `token` as bearer where there is one."""
    channel = grpc.ssl_channel_credentials(root_certificates=authority)
    if not token:
        return channel
    return grpc.composite_channel_credentials(channel, grpc.access_token_call_credentials(token))


def node_channel_credentials(authority: bytes, certificate: bytes, key: bytes) -> grpc.ChannelCredentials:
    """Credentials of a node agent: trust `authority`, show the node's certificate (all PEM)."""
    return grpc.ssl_channel_credentials(root_certificates=authority, private_key=key, certificate_chain=certificate)


def certificates_of(pem: bytes | str) -> list[str]:
    """Every certificate in `pem`, each as PEM, in order."""
    text = pem.decode() if isinstance(pem, bytes) else pem
    found = []
    for part in text.split(_PEM_BEGIN)[1:]:
        body, end, _ = part.partition(_PEM_END)
        if end:
            found.append(f"{_PEM_BEGIN}{body}{_PEM_END}\n")
    return found


def certificate_hash(pem: bytes | str) -> str:
    """sha256 of the DER form of the first certificate in `pem`, hex; ValueError where there is none."""
    certificates = certificates_of(pem)
    if not certificates:
        raise ValueError("cannot hash the certificate: there is none in the PEM text")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificates[0])).hexdigest()


def authority_in(chain: Sequence[str], expected_hash: str) -> str:
    """The certificate (PEM) of `chain` whose hash is `expected_hash`; ValueError where none is it."""
    for certificate in chain:
        if certificate_hash(certificate) == expected_hash:
            return certificate
    raise ValueError(
        "cannot trust the server: no certificate that it shows has the hash in the token; "
        "is this the right address, and the token of this cluster?"
    )


def read_pem(path: Path) -> bytes:
    """The bytes of a PEM file; ValueError where it holds no PEM text."""
    data = path.read_bytes()
    if b"-----BEGIN " not in data:
        raise ValueError(f"cannot read {path}: it holds no PEM text")
    return data
