"""The cluster's certificate authority: made once, signs the server's certificate and the nodes'.

Owns the files of `<state>/pki` (0700, keys 0600, written atomically). Keys are ECDSA P-256. Never reads or signs
a request without checking its subject. Fails with Invalid for a bad request, with OSError for a bad disk.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from podplane.errors import Invalid
from podplane.files import replace
from podplane.tls import NODE_ORGANIZATION, NODE_PREFIX, certificate_hash

AUTHORITY_LIFE = datetime.timedelta(days=3650)
SERVER_LIFE = datetime.timedelta(days=365)
SERVER_RENEWAL = datetime.timedelta(days=30)
NODE_LIFE = datetime.timedelta(hours=24)
_SKEW = datetime.timedelta(minutes=5)
"""Certificates begin this long before now: clocks of nodes differ."""

_PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _name(common: str, organization: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization), x509.NameAttribute(NameOID.COMMON_NAME, common)]
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """What the listeners show: the key, and the chain with the authority's certificate last (PEM)."""

    key: bytes
    chain: bytes


class Authority:
    """The certificate authority of one cluster, on disk."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = _read_key(directory / "ca.key")
        self.certificate = (directory / "ca.crt").read_bytes()
        self._certificate = x509.load_pem_x509_certificate(self.certificate)

    @classmethod
    def create(cls, directory: Path) -> Authority:
        """Make key and certificate below `directory`; what exists is kept."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (directory / "ca.crt").exists():
            key = ec.generate_private_key(ec.SECP256R1())
            # The key first: a certificate without its key would look like a finished authority.
            replace(directory / "ca.key", _key_pem(key), synced=True)
            replace(directory / "ca.crt", _pem(_self_signed(key)), synced=True)
        return cls(directory)

    @property
    def hash(self) -> str:
        """sha256 of the certificate's DER form, hex: the first part of a bootstrap token."""
        return certificate_hash(self.certificate)

    def server_identity(self, names: Sequence[str]) -> ServerIdentity:
        """The server's key and chain, valid for `names`; made anew where names are missing or the end is near."""
        chain, key = self._directory / "server.crt", self._directory / "server.key"
        if not (chain.exists() and key.exists() and _still_good(chain.read_bytes(), names)):
            private = ec.generate_private_key(ec.SECP256R1())
            certificate = self._server_certificate(private.public_key(), names)
            replace(key, _key_pem(private), synced=True)
            replace(chain, _pem(certificate) + self.certificate, synced=True)
        return ServerIdentity(key.read_bytes(), chain.read_bytes())

    def _server_certificate(self, key: ec.EllipticCurvePublicKey, names: Sequence[str]) -> x509.Certificate:
        return (
            self._builder(_name("podplane-controlplane", "podplane"), key, SERVER_LIFE)
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def sign_node(self, request_pem: str, node: str, life: datetime.timedelta = NODE_LIFE) -> str:
        """The certificate (PEM) for a node's request; Invalid where its subject is not that node's."""
        key = _node_key(request_pem, node)
        certificate = (
            self._builder(_name(NODE_PREFIX + node, NODE_ORGANIZATION), key, life)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return _pem(certificate).decode()

    def _builder(self, subject: x509.Name, key: _PublicKey, life: datetime.timedelta) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_now() - _SKEW)
            .not_valid_after(_now() + life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs=False), critical=True)
        )


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"cannot use {path}: it is no ECDSA key")
    return key


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    subject = _name("podplane-ca", "podplane")
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - _SKEW)
        .not_valid_after(_now() + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _still_good(pem: bytes, names: Sequence[str]) -> bool:
    certificate = x509.load_pem_x509_certificate(pem)
    held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {_general_name(name) for name in names} <= set(held) and (
        certificate.not_valid_after_utc - _now() > SERVER_RENEWAL
    )


def _node_key(pem: str, node: str) -> _PublicKey:
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        valid = request.is_signature_valid
    except (ValueError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise Invalid("cannot read the certificate signing request: it must be PKCS#10 in PEM") from error
    if not valid:
        raise Invalid("cannot sign the request: its own signature is wrong")
    subject = request.subject
    if set(subject) != set(_name(NODE_PREFIX + node, NODE_ORGANIZATION)):
        raise Invalid(
            f"cannot sign the request: its subject is {subject.rfc4514_string()}, "
            f"but must be CN={NODE_PREFIX}{node},O={NODE_ORGANIZATION}"
        )
    key = request.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise Invalid("cannot sign the request: its key must be ECDSA or RSA")
    return key
