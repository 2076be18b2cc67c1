"""What a load balancer is told at a healthCheckNodePort, by a real client."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket

import pytest

from nodeagent.proxy.health import HealthChecks
from nodeagent.proxy.services import HealthCheck, health_check
from tests.nodeagent.proxy.objects import Port, service, slice_of

PORTS: list[Port] = [("http", "TCP", 80, 30080, 8080), ("admin", "TCP", 81, 30081, 8081)]


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number: int = free.getsockname()[1]
    return number


def get(port: int) -> tuple[int, dict[str, str], dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), json.loads(answer.read())
    finally:
        connection.close()


async def test_it_answers_as_kube_proxy_does(port: int) -> None:
    healthy = True
    checks = HealthChecks(lambda: healthy)
    try:
        assert await checks.set([HealthCheck(port, "default/web", 2)]) == {}
        status, headers, body = await asyncio.to_thread(get, port)
        assert status == 200
        assert headers["Content-Type"] == "application/json"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Load-Balancing-Endpoint-Weight"] == "2"
        assert body == {
            "service": {"namespace": "default", "name": "web"},
            "localEndpoints": 2,
            "serviceProxyHealthy": True,
        }
        await checks.set([HealthCheck(port, "default/web", 0)])
        status, headers, body = await asyncio.to_thread(get, port)
        assert (status, headers["X-Load-Balancing-Endpoint-Weight"], body["localEndpoints"]) == (503, "0", 0)
        healthy = False
        await checks.set([HealthCheck(port, "default/web", 2)])
        status, _, body = await asyncio.to_thread(get, port)
        assert (status, body["serviceProxyHealthy"]) == (503, False)
        await checks.set([])
        with pytest.raises(ConnectionRefusedError):
            await asyncio.to_thread(get, port)
    finally:
        await checks.close()


async def test_a_port_that_is_taken_is_named_and_tried_again(port: int) -> None:
    checks, wanted = HealthChecks(lambda: True), [HealthCheck(port, "default/web", 1)]
    try:
        with socket.create_server(("0.0.0.0", port)):
            failed = await checks.set(wanted)
            assert failed["default/web"].startswith(f"cannot answer health checks on port {port}: ")
        assert await checks.set(wanted) == {}
        assert (await asyncio.to_thread(get, port))[0] == 200
    finally:
        await checks.close()


async def test_who_sends_no_request_or_too_long_a_one_is_let_go(port: int) -> None:
    checks = HealthChecks(lambda: True)
    try:
        await checks.set([HealthCheck(port, "default/web", 1)])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x" * 20000)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        assert (await asyncio.to_thread(get, port))[0] == 200
    finally:
        await checks.close()


def test_only_a_load_balancer_with_the_local_policy_has_one() -> None:
    made = service("web", "10.96.0.1", PORTS)
    made.spec.healthCheckNodePort = 32000
    slices = [slice_of("web", PORTS, ["10.0.0.2", "10.0.0.3"], ["10.0.0.4"], ["10.0.0.5"])]
    assert health_check(made, slices, "node-1") is None
    made.spec.type, made.spec.externalTrafficPolicy = "LoadBalancer", "Local"
    assert health_check(made, slices, "node-1") == HealthCheck(32000, "default/web", 2)
    assert health_check(made, [*slices, *slices], "node-1") == HealthCheck(32000, "default/web", 2)
    assert health_check(made, slices, "node-2") == HealthCheck(32000, "default/web", 0)
