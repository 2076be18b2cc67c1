"""The metrics endpoint of a control plane that runs, and what stands in the text."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path

import pytest

from podplane.metrics import Registry
from podplane.metrics_server import MetricsServer
from podplane.v1 import config_pb2, requests_pb2
from tests.controlplane.plane import running, status


async def fetch(port: int, request: str) -> tuple[int, str]:
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(request.encode())
            head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        finally:
            writer.close()
            await writer.wait_closed()
    return int(head.split()[1]), body


async def test_a_control_plane_tells_what_it_has_done(tmp_path: Path) -> None:
    async with running(tmp_path / "state", metrics=("127.0.0.1", 0)) as plane:
        assert plane.control.metrics_server is not None
        port = plane.control.metrics_server.port
        admin = plane.person()
        await admin.call("ConfigMaps/Create", config_pb2.ConfigMap(metadata={"name": "a"}))  # type: ignore[arg-type]
        await status(admin.call("ConfigMaps/Get", requests_pb2.GetRequest(name="b")))
        watch = admin.call("ConfigMaps/Watch", requests_pb2.WatchRequest())
        await anext(aiter(watch))
        code, body = await fetch(port, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert code == 200
        values = dict(line.rsplit(" ", 1) for line in body.splitlines() if not line.startswith("#"))
        assert values['podplane_requests_total{method="/podplane.v1.ConfigMaps/Create",code="OK"}'] == "1"
        assert values['podplane_requests_total{method="/podplane.v1.ConfigMaps/Get",code="NOT_FOUND"}'] == "1"
        assert values['podplane_request_seconds_count{method="/podplane.v1.ConfigMaps/Create"}'] == "1"
        assert values['podplane_open_streams{method="/podplane.v1.ConfigMaps/Watch"}'] == "1"
        assert values['podplane_objects{kind="ConfigMap"}'] == "1"
        assert values['podplane_controller_queue{controller="deployments"}'] == "0"
        assert values["podplane_store_revision"] == str(plane.control.log.revision)
        assert int(values["podplane_store_writes_total"]) >= int(values["podplane_store_commits_total"]) >= 1
        assert values["podplane_node_sessions"] == "0"
        assert values['podplane_scheduler_queue_pods{queue="unschedulable"}'] == "0"
        watch.cancel()
        for line in body.splitlines():
            assert re.fullmatch(r"(# (HELP|TYPE) podplane_\w+ .+|podplane_\w+(\{[^{}]*\})? [0-9.e+-]+)", line), line


@pytest.mark.parametrize(
    ("request_text", "code"),
    [
        ("GET /healthz HTTP/1.1\r\n\r\n", 200),
        ("GET /secrets HTTP/1.1\r\n\r\n", 404),
        ("POST /metrics HTTP/1.1\r\n\r\n", 405),
        ("nonsense\r\n\r\n", 400),
    ],
)
async def test_two_paths_are_served_and_nothing_else(request_text: str, code: int) -> None:
    server = await MetricsServer.open(Registry(), "127.0.0.1", 0)
    try:
        assert (await fetch(server.port, request_text))[0] == code
    finally:
        await server.close()


async def test_a_request_without_an_end_is_cut_off_and_others_are_served() -> None:
    server = await MetricsServer.open(Registry(), "127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"x" * 20_000)
        async with asyncio.timeout(4):
            # Bytes that were never read make it a reset rather than an end.
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
        assert (await fetch(server.port, "GET /healthz HTTP/1.1\r\n\r\n")) == (200, "ok\n")
    finally:
        await server.close()


async def test_the_text_is_what_prometheus_reads() -> None:
    registry = Registry()
    counter = registry.counter("podplane_things_total", "Things.", ("of",))
    counter.add('a"\\\n', by=2)
    histogram = registry.histogram("podplane_wait_seconds", "Waits.", bounds=(0.5, 1.0))
    for value in (0.5, 0.75, 3.0):
        histogram.observe(value)
    registry.gauge("podplane_depth", "Depth.", lambda: 1.5)
    assert registry.text() == (
        "# HELP podplane_things_total Things.\n# TYPE podplane_things_total counter\n"
        'podplane_things_total{of="a\\"\\\\\\n"} 2\n'
        "# HELP podplane_wait_seconds Waits.\n# TYPE podplane_wait_seconds histogram\n"
        'podplane_wait_seconds_bucket{le="0.5"} 1\npodplane_wait_seconds_bucket{le="1"} 2\n'
        'podplane_wait_seconds_bucket{le="+Inf"} 3\npodplane_wait_seconds_sum 4.25\npodplane_wait_seconds_count 3\n'
        "# HELP podplane_depth Depth.\n# TYPE podplane_depth gauge\npodplane_depth 1.5\n"
    )
    for name in ("podplane_depth", "other_total"):
        with pytest.raises(ValueError, match="cannot add the metric"):
            registry.counter(name, "Twice, or foreign.")
