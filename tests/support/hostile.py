"""A registry that misbehaves on request: every fault that a real one, or a false one, may show.

Serves one image under any name. `faults` says what goes wrong with which part: ping, token, manifest,
config or layer; what has no fault is served as it should be.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.archives import Packed, digest

Fault = Callable[["Request", bytes], None]


class Hostile:
    """A running registry; `close` ends it, and whatever it holds up."""

    def __init__(self, image: Packed, listen: str = "127.0.0.1") -> None:
        self.image = self._first = image
        self.more: dict[str, tuple[str, bytes]] = {}
        """Manifests by digest, beside the image's own: kind and bytes."""
        self.index: tuple[str, bytes] | None = None
        """Served for tags in place of the image's manifest."""
        self.faults: dict[str, Fault] = {}
        self.logins: set[str] = set()
        """`user:password` of those who may pull; empty: everybody."""
        self.asked: list[tuple[str, str]] = []
        """Part and path of every request, in order."""
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer((listen, 0), Request)
        self._server.registry = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def conf(self, host: str = "127.0.0.1") -> str:
        """The registries.conf that permits it without TLS, as reached at `host`."""
        return f'[[registry]]\nlocation = "{host}:{self.port}"\ninsecure = true\n'

    def reset(self) -> None:
        """The first image, no faults, no logins, nothing asked."""
        self.image = self._first
        self.faults.clear()
        self.logins.clear()
        self.asked.clear()

    def count(self, part: str) -> int:
        """How often a part was asked for by GET."""
        return sum(found == part for found, _ in self.asked)

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class Request(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    timeout = 30

    @property
    def registry(self) -> Hostile:
        found: Hostile = self.server.registry  # type: ignore[attr-defined]
        return found

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        part, kind, body = self._find()
        if self.command == "GET":
            self.registry.asked.append((part, self.path))
        if self.registry.logins and not self._logged_in():
            self.answer(401, b"", {"WWW-Authenticate": 'Basic realm="hostile"'})
        elif part in self.registry.faults:
            self.registry.faults[part](self, body)
        elif part == "unknown":
            say(404, "NAME_UNKNOWN", "nothing of that name")(self, b"")
        else:
            self.answer(200, body, {"Content-Type": kind, "Docker-Content-Digest": digest(body)})

    def answer(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True  # the client has gone: what a cancelled pull does

    def _logged_in(self) -> bool:
        given = self.headers.get("Authorization", "").removeprefix("Basic ")
        return base64.b64decode(given).decode() in self.registry.logins

    def _find(self) -> tuple[str, str, bytes]:
        image, octets = self.registry.image, "application/octet-stream"
        if self.path in ("/v2/", "/v2"):
            return "ping", "application/json", b"{}"
        where, _, name = self.path.rpartition("/")
        if where.endswith("/manifests"):
            if name in self.registry.more:
                return "manifest", *self.registry.more[name]
            if self.registry.index is not None and name != digest(image.manifest):
                return "manifest", *self.registry.index
            return "manifest", image.kind, image.manifest
        if where.endswith("/blobs") and name in image.blobs:
            return "config" if name == image.config else "layer", octets, image.blobs[name]
        return "unknown", octets, b""


def say(status: int, code: str, message: str, **headers: str) -> Fault:
    """Answer with an error of the distribution specification."""
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()

    def fault(request: Request, _body: bytes) -> None:
        request.answer(status, body, {"Content-Type": "application/json", **headers})

    return fault


def other(body: bytes) -> Fault:
    """Serve something else than was asked for."""
    return lambda request, _body: request.answer(200, body, {"Content-Type": "application/octet-stream"})


def hang_up(request: Request, _body: bytes) -> None:
    """Close the connection without a word."""
    request.close_connection = True
    request.connection.close()


def hang(request: Request, _body: bytes) -> None:
    """Take the request and never answer."""
    request.registry.closing.wait(60)
    request.close_connection = True


def cut(request: Request, body: bytes) -> None:
    """Promise the whole, send a half, close."""
    request.answer(200, body[: len(body) // 2], {}, length=len(body))
    request.close_connection = True


def short(request: Request, body: bytes) -> None:
    """Say that half of it is all."""
    request.answer(200, body[: len(body) // 2], {})


def endless(request: Request, body: bytes) -> None:
    """The whole, and then zeros for as long as somebody takes them."""
    request.send_response(200)
    request.end_headers()
    request.wfile.write(body)
    while not request.registry.closing.is_set():
        request.wfile.write(bytes(1 << 16))


def trickle(request: Request, body: bytes) -> None:
    """Promise the whole, and send a byte now and then."""
    request.answer(200, b"", {}, length=len(body))
    for at in range(len(body)):
        if request.registry.closing.wait(0.1):
            break
        request.wfile.write(body[at : at + 1])
    request.close_connection = True


def loop(request: Request, _body: bytes) -> None:
    """Redirect to itself, for ever."""
    request.answer(307, b"", {"Location": request.path})


class Gate:
    """A fault that holds every answer back until it is opened, `before` so many bytes of the body."""

    def __init__(self, after: int = 0) -> None:
        self._after = after
        self._open = threading.Event()
        self.reached = threading.Event()

    def open(self) -> None:
        self._open.set()

    def __call__(self, request: Request, body: bytes) -> None:
        request.answer(200, body[: self._after], {}, length=len(body))
        request.wfile.flush()
        self.reached.set()
        while not self._open.wait(0.05):
            if request.registry.closing.is_set():
                request.close_connection = True
                return
        request.wfile.write(body[self._after :])
