"""What skopeo says, and which status that is. The words are skopeo's own, as it printed them."""

from __future__ import annotations

import pytest

from nodeagent.runtime import asked
from nodeagent.runtime.refusals import failure, throttled, words

DEBUG = 'time="x" level=debug msg="GET https://r/v2/ err Get \\"https://r/v2/\\": dial tcp: no such host"\n'


def said(text: str) -> str:
    escaped = text.replace('"', '\\"').replace("\n", "\\n")
    return f'{DEBUG}time="2026-11-25T04:15:47Z" level=fatal msg="{escaped}"\n'


@pytest.mark.parametrize(
    "text",
    [
        'pinging container registry r:9: Get "https://r:9/v2/": dial tcp 127.0.0.1:9: connect: connection refused',
        'pinging container registry r: Get "https://r/v2/": dial tcp: lookup r on 127.0.0.1:53: no such host',
        'pinging container registry r: Get "https://r/v2/": net/http: TLS handshake timeout',
        'pinging container registry r: Get "https://r/v2/": x509: certificate signed by unknown authority',
        'pinging container registry r: Get "https://r/v2/": http: server gave HTTP response to HTTPS client',
        'pinging container registry r: Get "https://r/v2/": dial tcp 192.0.2.1:443: i/o timeout',
        'Get "http://r/v2/x/y/manifests/1": EOF',
        "pinging container registry r: invalid status code from registry 503 (Service Unavailable)",
        "reading manifest 1 in r/x/y: received unexpected HTTP status: 500 Internal Server Error",
        "reading blob sha256:14f4: Error fetching blob: invalid status code from registry 502 (Bad Gateway)",
        "writing blob: happened during read: read tcp 127.0.0.1:4->127.0.0.1:5: i/o timeout",
        '(Mirrors also failed: [m/x:1: Get "http://m/v2/": EOF]): docker.io/library/x:1: pinging container registry '
        'registry-1.docker.io: Get "https://registry-1.docker.io/v2/": dial tcp: no such host',
    ],
)
def test_a_registry_that_cannot_answer_is_unavailable(text: str) -> None:
    found = failure("x", said(text))
    assert (found.reason, found.message) == ("RegistryUnavailable", f'failed to pull image "x": {text}')


@pytest.mark.parametrize(
    "text",
    [
        "reading manifest 1 in r/x/y: unauthorized: authentication required",
        "reading manifest 1 in r/x/y: denied: no entry for you",
        "reading manifest 500 in r:503/x/y: manifest unknown: manifest unknown to me",
        "reading manifest 1 in r/x/y: toomanyrequests: slow down",
        "reading manifest 1 in r/x/y: denied: connection refused by policy, timeout",
        "reading blob sha256:1: Error fetching blob: invalid status code from registry 403 (Forbidden)",
        "writing blob: happened during read: unexpected EOF",
        "writing blob: happened during read: Digest did not match, expected sha256:1, got sha256:503",
        'Get "/v2/x/y/manifests/1": stopped after 10 redirects',
        "(Mirrors also failed: [m/x:1: reading manifest 1 in m/x: manifest unknown: nope]\n[n/x:1: reading manifest 1 "
        "in n/x: received unexpected HTTP status: 503 Service Unavailable]): docker.io/library/x:1: pinging container "
        'registry registry-1.docker.io: Get "https://registry-1.docker.io/v2/": dial tcp: no such host',
    ],
)
def test_a_registry_that_answered_is_quoted(text: str) -> None:
    found = failure("x", said(text))
    assert (found.reason, found.message) == ("ErrImagePull", f'failed to pull image "x": {" ".join(text.split())}')


def test_the_wrapping_goes_and_something_is_always_said() -> None:
    assert words(said('Error parsing image name "docker://r/x:1": denied: no')) == "denied: no"
    assert words("panic: oh") == "panic: oh"
    assert words("") == "skopeo gave no reason"


def test_the_errors_of_an_answer_are_its_words() -> None:
    body = b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "slow\\ndown"}, {"code": "X", "message": "y"}]}'
    assert asked.said(body) == "toomanyrequests: slow down; x: y"
    for odd in (b"", b"<html>", b"[]", b'{"errors": 1}', b'{"errors": [{}]}'):
        assert asked.said(odd) == ""


def test_a_wait_that_the_registry_asked_for_is_seen() -> None:
    line = 'level=debug msg="Too many requests to http://r/v2/x/manifests/1: sleeping for 60.0 seconds before"'
    assert throttled(DEBUG) is None
    assert throttled(DEBUG + line) == "http://r/v2/x/manifests/1"
