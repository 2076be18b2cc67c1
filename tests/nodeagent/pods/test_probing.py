"""How a probe is made: real servers of every kind, and what is said where one does not pass."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import grpc.aio
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from grpc_health.v1 import health, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_health.v1.health_pb2 import HealthCheckResponse  # type: ignore[import-untyped]

from nodeagent.pods.probing import Failed, Probing, request
from nodeagent.runtime.inotify import Inotify
from podplane.v1.container_pb2 import Container, HTTPGetAction, Probe
from tests.support.certificates import self_signed


def test_headers_of_the_probe_take_the_place_of_the_usual_ones() -> None:
    get = HTTPGetAction()
    get.httpHeaders.add(name="host", value="shop.example")
    get.httpHeaders.add(name="X-A", value="1\r\nX-B: 2")
    said = request("/a b", "10.1.0.2:80", get)
    assert said.startswith(b"GET /a%20b HTTP/1.1\r\n")
    assert b"Host: 10.1" not in said
    assert b"host: shop.example\r\nX-A: 1X-B: 2\r\n\r\n" in said


def test_an_empty_header_of_the_probe_leaves_the_usual_one_out() -> None:
    get = HTTPGetAction()
    get.httpHeaders.add(name="Accept", value="")
    assert b"accept" not in request("/", "10.1.0.2:80", get).lower()
    assert b"accept: */*" in request("/", "10.1.0.2:80", HTTPGetAction()).lower()


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]

ANSWERS = {
    "/ok": "204 No Content",
    "/bad": "500 No",
    "/here": "302 Found\r\nLocation: /bad",
    "/away": "302 Found\r\nLocation: http://elsewhere.invalid/",
    "/loop": "302 Found\r\nLocation: /loop",
    "/odd": "302 Found\r\nLocation: http://[",
}


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
    if path != "/slow":
        writer.write(f"HTTP/1.1 {ANSWERS[path]}\r\nContent-Length: 0\r\n\r\n".encode())
    with contextlib.suppress(ConnectionError):  # until the probe has gone away
        await reader.read()
    await _end(writer)


async def _end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def _served(serving: list[asyncio.Task[None]]) -> None:
    async with asyncio.timeout(5):
        await asyncio.gather(*serving)


def _serve(handler: Handler, serving: list[asyncio.Task[None]]) -> Callable[..., None]:
    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.ensure_future(handler(reader, writer)))

    return begin


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/ok", ""),
        ("/away", ""),
        ("/bad", "statuscode: 500"),
        ("/here", "statuscode: 500"),
        ("/loop", "stopped after 10 redirects"),
        ("/odd", "Invalid IPv6 URL"),
        ("/slow", "no answer within 1s"),
    ],
)
async def test_an_http_probe_passes_from_200_to_399_and_follows_its_own_host(
    path: str, expected: str, tmp_path: Path
) -> None:
    serving: list[asyncio.Task[None]] = []
    server = await asyncio.start_server(_serve(_answer, serving), "127.0.0.1", 0)
    probe = Probe()
    probe.httpGet.path, probe.httpGet.port.string_value = path, "web"
    container = Container(name="a0")
    container.ports.add(name="web", containerPort=server.sockets[0].getsockname()[1])
    async with server:
        found = await _outcome(container, probe, tmp_path)
        await _served(serving)
    assert found == expected if not expected else expected in found


@pytest.fixture(scope="module")
def unknown_authority(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """What a server needs that shows a certificate of another name, which nobody vouches for."""
    certificate, key = self_signed("somebody.else")
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(certificate + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/ok", ""), ("/bad", "HTTP probe failed with statuscode: 500"), ("/here", "statuscode: 500")],
)
async def test_an_https_probe_takes_any_certificate(
    path: str, expected: str, unknown_authority: ssl.SSLContext, tmp_path: Path
) -> None:
    serving: list[asyncio.Task[None]] = []
    server = await asyncio.start_server(_serve(_answer, serving), "127.0.0.1", 0, ssl=unknown_authority)
    async with server:
        found = await _outcome(Container(), _get(server, path, scheme="HTTPS"), tmp_path)
        await _served(serving)
    assert found == expected if not expected else expected in found


async def test_an_https_probe_of_a_server_without_tls_fails(tmp_path: Path) -> None:
    serving: list[asyncio.Task[None]] = []

    async def confused(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await _end(writer)

    async with await asyncio.start_server(_serve(confused, serving), "127.0.0.1", 0) as server:
        found = await _outcome(Container(), _get(server, "/ok", scheme="HTTPS"), tmp_path)
        await _served(serving)
    assert found.startswith("dial tcp 127.0.0.1:")
    assert "WRONG_VERSION_NUMBER" in found


async def test_a_probe_asks_the_host_it_names_with_the_headers_it_gives(tmp_path: Path) -> None:
    """The pod's address is 127.0.0.1: only the probe's own word leads to 127.0.0.2."""
    asked: list[list[bytes]] = []
    serving: list[asyncio.Task[None]] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await _end(writer)

    async with await asyncio.start_server(_serve(note, serving), "127.0.0.2", 0) as server:
        probe = _get(server, "/healthz?deep=1", host="127.0.0.2")
        probe.httpGet.httpHeaders.add(name="Host", value="shop.example")
        probe.httpGet.httpHeaders.add(name="X-Deep", value="yes")
        assert await _outcome(Container(), probe, tmp_path) == ""
        probe.httpGet.host = ""
        assert "connection refused" in await _outcome(Container(), probe, tmp_path)
        await _served(serving)
    ((line, *headers),) = asked
    assert line == b"GET /healthz?deep=1 HTTP/1.1"
    assert {b"Host: shop.example", b"X-Deep: yes", b"User-Agent: kube-probe/podplane"} <= set(headers)


def _get(server: asyncio.Server, path: str, *, scheme: str = "HTTP", host: str = "") -> Probe:
    probe = Probe(httpGet=HTTPGetAction(path=path, scheme=scheme, host=host))
    probe.httpGet.port.number_value = server.sockets[0].getsockname()[1]
    return probe


async def test_a_tcp_probe_of_a_closed_port_and_of_a_name_nobody_has_fail(tmp_path: Path) -> None:
    serving: list[asyncio.Task[None]] = []
    server = await asyncio.start_server(_serve(lambda _reader, writer: _end(writer), serving), "127.0.0.1", 0)
    probe = Probe()
    probe.tcpSocket.port.number_value = server.sockets[0].getsockname()[1]
    assert await _outcome(Container(), probe, tmp_path) == ""
    await asyncio.sleep(0)
    await _served(serving)
    server.close()
    await server.wait_closed()
    assert "dial tcp 127.0.0.1" in await _outcome(Container(), probe, tmp_path)
    probe.tcpSocket.port.string_value = "nobody"
    assert await _outcome(Container(), probe, tmp_path) == "couldn't find port: nobody"


class Mute(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Takes the question and never answers."""

    async def Check(self, request: object, context: object) -> None:
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def _grpc_server(servicer: object = None) -> AsyncIterator[int]:
    """The port of a gRPC server of this health service, or of none."""
    server = grpc.aio.server()
    if servicer:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


async def _asked_by_grpc(port: int, marks: Path, service: str = "") -> str:
    probe = Probe()
    probe.grpc.port, probe.grpc.service = port, service
    return await _outcome(Container(), probe, marks)


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ("", ""),
        ("well", ""),
        ("ill", 'service unhealthy (responded with "NOT_SERVING")'),
        ("new", 'service unhealthy (responded with "UNKNOWN")'),
        ("nobody", "error: health rpc probe failed: StatusCode.NOT_FOUND"),
    ],
)
async def test_a_grpc_probe_passes_where_the_service_serves(service: str, expected: str, tmp_path: Path) -> None:
    servicer = health.aio.HealthServicer()
    await servicer.set("well", HealthCheckResponse.SERVING)
    await servicer.set("ill", HealthCheckResponse.NOT_SERVING)
    await servicer.set("new", HealthCheckResponse.UNKNOWN)
    async with _grpc_server(servicer) as port:
        assert await _asked_by_grpc(port, tmp_path, service) == expected


async def test_a_grpc_probe_says_why_nobody_answers(tmp_path: Path) -> None:
    async with _grpc_server() as port:
        said = await _asked_by_grpc(port, tmp_path)
        assert said == "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
    said = await _asked_by_grpc(port, tmp_path)
    assert said.startswith("error: health rpc probe failed: failed to connect to all addresses")
    assert "Connection refused" in said
    async with _grpc_server(Mute()) as port:
        said = await _asked_by_grpc(port, tmp_path)
        assert said == "timeout: health rpc did not complete within 1s: context deadline exceeded"


async def test_a_grpc_probe_dials_the_pod_whatever_proxy_the_agent_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with _grpc_server(health.aio.HealthServicer()) as port:
        assert await _asked_by_grpc(port, tmp_path) == ""


async def _outcome(container: Container, probe: Probe, marks: Path) -> str:
    events = Inotify()
    try:
        await Probing("127.0.0.1", container, marks, events, lambda _options, argv: argv).probe(probe)
    except Failed as failed:
        return str(failed)
    finally:
        events.close()
    return ""
