"""`python -m nodeagent.join`: makes this node's key and gets it a certificate; a short child of the agent.

A child, because what it needs (pyOpenSSL, cryptography) is 10 MB that a running agent does not. The token has the form
<sha256 of the CA certificate>.<id>.<secret>: the server's chain is fetched without trust, the certificate with that
hash is the authority, and only then, over TLS verified by it, is `<id>.<secret>` sent. Nothing is sent to a server
that cannot show that authority. Renewing needs no token: it uses the certificate that is about to end.

Fails with exit status 1 and one line that says what to do; the token is in no message.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from nodeagent import certificates
from podplane.files import replace
from podplane.tls import (
    NODE_ORGANIZATION,
    NODE_PREFIX,
    authority_in,
    node_channel_credentials,
    token_channel_credentials,
)
from podplane.v1.session_pb2 import JoinRequest, JoinResponse

DEADLINE = 15.0
_TOKEN = re.compile(r"([0-9a-f]{64})\.([A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)")


class JoinFailure(Exception):
    """The node cannot join; the message says why and what to do."""


def split_token(text: str) -> tuple[str, str]:
    """(hash of the authority, what is sent as bearer)."""
    match = _TOKEN.fullmatch(text.strip())
    if match is None:
        raise JoinFailure("cannot use the token: it does not have the form <hash>.<id>.<secret>; make a new one")
    return match[1], match[2]


def split_address(address: str) -> tuple[str, int]:
    """host:port, with or without brackets around an IPv6 host."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or not host:
        raise JoinFailure(f"cannot join {address}: give it as HOST:PORT")
    return host.strip("[]"), int(port)


def fetch_chain(address: str) -> list[str]:
    """The certificates that the server shows, as PEM, trusted for nothing yet."""
    host, port = split_address(address)
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    context.set_alpn_protos([b"h2"])
    try:
        with socket.create_connection((host, port), timeout=DEADLINE) as connection:
            # pyOpenSSL needs a blocking socket; the kernel's own time-outs bound it.
            connection.settimeout(None)
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                connection.setsockopt(socket.SOL_SOCKET, option, int(DEADLINE).to_bytes(8, sys.byteorder) + bytes(8))
            secure = SSL.Connection(context, connection)
            secure.set_connect_state()
            secure.do_handshake()
            chain = secure.get_peer_cert_chain(as_cryptography=True) or []
            return [item.public_bytes(serialization.Encoding.PEM).decode() for item in chain]
    except (OSError, SSL.Error) as error:
        raise JoinFailure(f"cannot reach the control plane at {address}: {error}") from None


def make_request(node: str) -> tuple[bytes, str]:
    """(a new private key, the signing request for it), PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, NODE_ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, NODE_PREFIX + node),
        ]
    )
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, request.public_bytes(serialization.Encoding.PEM).decode()


def call(address: str, credentials: grpc.ChannelCredentials, method: str, request: JoinRequest) -> JoinResponse:
    """One call of Join or Renew, with the server's words where it refuses."""
    with grpc.secure_channel(address, credentials) as channel:
        invoke = channel.unary_unary(
            f"/podplane.v1.{method}",
            request_serializer=JoinRequest.SerializeToString,
            response_deserializer=JoinResponse.FromString,
        )
        try:
            answer = invoke(request, timeout=DEADLINE)
        except grpc.RpcError as error:
            words = f"{error.code().name}: {error.details()}"
            raise JoinFailure(f"the control plane at {address} refused: {words}") from None
    assert isinstance(answer, JoinResponse)
    return answer


def join(pki: Path, address: str, node: str, token: str) -> None:
    """Get an identity for this node. Raises JoinFailure; what was there before is then untouched."""
    expected, bearer = split_token(token)
    try:
        authority = authority_in(fetch_chain(address), expected)
    except ValueError as error:
        raise JoinFailure(str(error)) from None
    key, request = make_request(node)
    credentials = token_channel_credentials(authority.encode(), bearer)
    answer = call(address, credentials, "Bootstrap/Join", JoinRequest(nodeName=node, certificateSigningRequest=request))
    host, _ = split_address(address)
    keep(pki, node, _session_address(answer.sessionAddress, host), key, answer)


def renew(pki: Path) -> None:
    """A new certificate by the old one. Raises JoinFailure; the old identity is then untouched."""
    old = certificates.read(pki)
    key, request = make_request(old.node)
    credentials = node_channel_credentials(old.authority, old.certificate, old.key)
    asked = JoinRequest(nodeName=old.node, certificateSigningRequest=request)
    answer = call(old.address, credentials, "NodeSessions/Renew", asked)
    keep(pki, old.node, old.address, key, answer)


def _session_address(given: str, host: str) -> str:
    """host:port; a given address without a host is on the host that Join was called on."""
    if not given.startswith(":"):
        return given
    return f"[{host}]{given}" if ":" in host else f"{host}{given}"


def keep(pki: Path, node: str, address: str, key: bytes, answer: JoinResponse) -> None:
    """Write the identity into a directory of its own, then make it the current one by one rename.

    state/pki/{key,cert,ca}.pem are links into the current one: a crash leaves the old identity whole, or the new one.
    """
    certificate = x509.load_pem_x509_certificate(answer.certificate.encode())
    joined = {
        "node": node,
        "address": address,
        "clusterID": answer.clusterID,
        "notBefore": certificate.not_valid_before_utc.timestamp(),
        "notAfter": certificate.not_valid_after_utc.timestamp(),
    }
    fresh = pki / f"identity-{secrets.token_hex(8)}"
    fresh.mkdir(parents=True, mode=0o700)
    replace(fresh / "ca.pem", answer.certificateAuthority.encode(), synced=True)
    replace(fresh / "key.pem", key, synced=True)
    replace(fresh / "cert.pem", answer.certificate.encode(), synced=True)
    replace(fresh / "joined.json", json.dumps(joined).encode(), synced=True)
    for name in ("ca.pem", "key.pem", "cert.pem", "joined.json"):
        _link(pki / name, f"{certificates.CURRENT}/{name}")
    _link(pki / certificates.CURRENT, fresh.name)
    for old in pki.glob("identity-*"):
        if old != fresh:
            shutil.rmtree(old)


def _link(path: Path, target: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, path)


def _read_token(path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text()
    except OSError as error:
        raise JoinFailure(f"cannot read the token file {path}: {error.strerror}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """join: the token on stdin or in a file; renew: by the identity that is there."""
    parser = argparse.ArgumentParser(prog="nodeagent.join", description="Get this node a certificate.")
    parser.add_argument("--pki", type=Path, required=True, help="directory of the identity")
    parser.add_argument("--renew", action="store_true", help="use the present certificate")
    parser.add_argument("--address", default="", help="HOST:PORT of the control plane")
    parser.add_argument("--node-name", default="")
    parser.add_argument("--token-file", default="-")
    options = parser.parse_args(argv)
    try:
        if options.renew:
            renew(options.pki)
        else:
            join(options.pki, options.address, options.node_name, _read_token(options.token_file))
    except (JoinFailure, certificates.NotJoined) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
