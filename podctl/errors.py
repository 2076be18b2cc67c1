"""What a failed call means, and how kubectl words it: one place for both directions.

gRPC codes become the exceptions of podplane.errors, so that verbs decide by class; uncaught ones become one line.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from podctl.failure import Failure
from podplane.errors import (
    GRPC_CODES,
    AlreadyExists,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    NotFound,
    NotSupported,
    PodplaneError,
    TooLarge,
    Unauthenticated,
    Unavailable,
)

if TYPE_CHECKING:
    import grpc

_CLASSES: dict[str, type[PodplaneError]] = {code: error for error, code in GRPC_CODES.items()}
_REASONS: dict[type[PodplaneError], str] = {
    NotFound: "NotFound",
    AlreadyExists: "AlreadyExists",
    Forbidden: "Forbidden",
    Conflict: "Conflict",
    Expired: "Expired",
    Unavailable: "ServiceUnavailable",
    NotSupported: "NotSupported",
    TooLarge: "RequestEntityTooLarge",
    Invalid: "BadRequest",
}
# gRPC reports its own connection trouble with the code that a server uses for "not now"; only the words differ.
_CONNECTION = re.compile(
    r"failed to connect|DNS resolution failed|Socket closed|Endpoint closing|Connection reset|GOAWAY|"
    r"handshake|recvmsg|sendmsg|Broken pipe|keepalive|ping timeout|tcp handshaker|Stream removed|RST_STREAM",
    re.IGNORECASE,
)


class Disconnected(Unavailable):
    """The control plane cannot be reached, or the connection to it broke."""


def from_rpc(error: grpc.RpcError, server: str) -> Exception:
    """The exception that stands for a failed call."""
    code, details = error.code().name, error.details() or ""
    if code == "CANCELLED":
        # A server that stops resets its open streams; nothing here cancels a call that somebody still reads.
        return Disconnected(f"{server} ended the call; is it being stopped?")
    if code in ("UNAVAILABLE", "UNKNOWN", "INTERNAL") and _CONNECTION.search(details):
        return Disconnected(_connection_message(server, details))
    if code == "DEADLINE_EXCEEDED":
        return Disconnected(f"no answer from {server} in time; see --request-timeout")
    if code in _CLASSES:
        return _CLASSES[code](details)
    return Failure(f"Error from server (InternalError): {details or code}")


def wording(error: Exception, prefix: str = "") -> str | None:
    """The line for stderr, in kubectl's words; None for an exception that is nobody's answer: a defect of ours."""
    if isinstance(error, Failure):
        return error.message
    if isinstance(error, Disconnected):
        return f"Unable to connect to the server: {error}"
    if isinstance(error, Unauthenticated):
        return f"error: You must be logged in to the server (Unauthorized): {error}"
    if not isinstance(error, PodplaneError):
        return None
    if isinstance(error, Invalid) and re.match(r'[A-Z]\w*(\.[\w.]+)? "[^"]*" is invalid', str(error)):
        return f"{prefix}The {error}"
    reason = next(name for kind, name in _REASONS.items() if isinstance(error, kind))
    return f"Error from server ({reason}): {prefix}{error}"


def _connection_message(server: str, details: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in details or "handshake" in details.lower():
        return f"TLS with {server} failed: {_last(details)}; is --certificate-authority the one of this control plane?"
    start = "is it running? (make up / systemctl start podplane-controlplane)"
    return f"{server}: {_last(details)}; {start}"


def _last(details: str) -> str:
    """The cause at the end of gRPC's chain of reasons."""
    text = details.rpartition("last error: ")[2] or details
    known = re.search(
        r"Connection refused|No route to host|Network is unreachable|timed? ?out|Name or service not known", text
    )
    return known.group(0).lower() if known else text[:200]
