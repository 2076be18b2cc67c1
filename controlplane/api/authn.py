"""Who is calling: a person by bearer token, a node by its certificate, a joining node by bootstrap token.

Reads credentials from a call's metadata and TLS peer; never decides what the caller may do (authz.py). Fails with
Unauthenticated, whose words say how to get credentials; whether a token is unknown or expired is not told apart.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from cryptography import x509
from cryptography.x509.oid import NameOID

from controlplane.tokens import BOOTSTRAP, Tokens
from podplane.errors import Unauthenticated
from podplane.tls import NODE_ORGANIZATION, NODE_PREFIX

PERSON, NODE_AGENT, JOINING, NOBODY = "person", "node", "joining", "nobody"


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller. `role` is view, edit or admin for a person; `node` is the node's name for an agent."""

    kind: str
    username: str
    groups: tuple[str, ...] = ()
    role: str = ""
    node: str = ""
    token_id: str = ""
    expires: float | None = None


ANONYMOUS = Identity(NOBODY, "system:anonymous", ("system:unauthenticated",))


class Call(Protocol):
    """The part of a gRPC context that credentials are read from."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...

    def auth_context(self) -> Mapping[str, Iterable[bytes]]: ...


class Authenticator:
    """Turns a call's credentials into an Identity."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def identify(self, call: Call) -> Identity | None:
        """The caller, None where it shows no credentials; Unauthenticated where it shows bad ones."""
        certificate = call.auth_context().get("x509_pem_cert")
        if certificate:
            node = _node(bytes(next(iter(certificate))))
            # TLS looked at the dates when the connection began, and a connection may last for ever.
            if not self.still_valid(node):
                raise Unauthenticated("the node's certificate has expired: connect again with its successor")
            return node
        for name, value in call.invocation_metadata() or ():
            if name == "authorization":
                return self._bearer(value if isinstance(value, str) else value.decode("ascii", "replace"))
        return None

    def still_valid(self, identity: Identity) -> bool:
        """False once the credentials of an open stream have ended or were revoked."""
        if identity.token_id:
            return self._tokens.current(identity.token_id) is not None
        return identity.expires is None or time.time() < identity.expires

    def _bearer(self, header: str) -> Identity:
        scheme, _, bearer = header.partition(" ")
        token = self._tokens.check(bearer.strip()) if scheme.lower() == "bearer" else None
        if token is None:
            raise Unauthenticated(
                "the token is unknown or has expired: make a new one with `podplane-controlplane token`"
            )
        if token.role == BOOTSTRAP:
            return Identity(JOINING, token.user, ("system:bootstrappers",), token_id=token.id)
        groups = (f"podplane:{token.role}", "system:authenticated")
        return Identity(PERSON, token.user, groups, role=token.role, token_id=token.id)


@functools.lru_cache(maxsize=4096)
def _node(pem: bytes) -> Identity:
    """The node whose certificate this is; TLS has checked the signature."""
    certificate = x509.load_pem_x509_certificate(pem)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    organizations = [item.value for item in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    common = str(names[0].value) if len(names) == 1 else ""
    if organizations != [NODE_ORGANIZATION] or not common.startswith(NODE_PREFIX):
        raise Unauthenticated("the client certificate is not a node's: join with a bootstrap token first")
    groups = (NODE_ORGANIZATION, "system:authenticated")
    expires = certificate.not_valid_after_utc.timestamp()
    return Identity(NODE_AGENT, common, groups, node=common.removeprefix(NODE_PREFIX), expires=expires)
