"""What a failed call becomes, and its words."""

from __future__ import annotations

import grpc
import pytest

from podctl.errors import Disconnected, from_rpc, wording
from podctl.failure import Failure
from podplane.errors import GRPC_CODES, Invalid, NotFound, Unavailable


class _Failed(grpc.RpcError):
    """A failed call as gRPC raises it: an error that is a call, too."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__()
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details


@pytest.mark.parametrize(("kind", "code"), GRPC_CODES.items())
def test_every_code_becomes_the_class_that_a_server_raised(kind: type[Exception], code: str) -> None:
    error = from_rpc(_Failed(grpc.StatusCode[code], "why"), "host:1")
    assert type(error) is kind
    assert "why" in (wording(error) or "")


@pytest.mark.parametrize(
    ("code", "details", "words"),
    [
        (
            "UNAVAILABLE",
            "failed to connect to all addresses; last error: x: Connection refused (111)",
            "connection refused",
        ),
        ("UNAVAILABLE", "Socket closed", "is it running?"),
        ("UNAVAILABLE", "Ssl handshake failed: CERTIFICATE_VERIFY_FAILED", "--certificate-authority"),
        ("CANCELLED", "", "being stopped"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", "--request-timeout"),
        ("UNKNOWN", "Stream removed", "is it running?"),
    ],
)
def test_broken_connection_is_told_from_an_answer(code: str, details: str, words: str) -> None:
    error = from_rpc(_Failed(grpc.StatusCode[code], details), "host:1")
    assert isinstance(error, Disconnected)
    assert words in (wording(error) or "")
    assert (wording(error) or "").startswith("Unable to connect to the server: ")


def test_server_that_cannot_now_is_no_broken_connection() -> None:
    error = from_rpc(_Failed(grpc.StatusCode.UNAVAILABLE, "node node-1 is not connected"), "host:1")
    assert type(error) is Unavailable
    assert wording(error) == "Error from server (ServiceUnavailable): node node-1 is not connected"


def test_invalid_object_is_worded_as_kubectl_words_it() -> None:
    assert wording(Invalid('Pod "web" is invalid: spec: x')) == 'The Pod "web" is invalid: spec: x'
    assert (
        wording(Invalid("limit: must not be negative")) == "Error from server (BadRequest): limit: must not be negative"
    )
    assert (
        wording(NotFound('pods "x" not found'), "while y: ")
        == 'Error from server (NotFound): while y: pods "x" not found'
    )


def test_defect_of_ours_has_no_wording() -> None:
    assert wording(KeyError("x")) is None
    assert isinstance(from_rpc(_Failed(grpc.StatusCode.INTERNAL, "boom"), "host:1"), Failure)
