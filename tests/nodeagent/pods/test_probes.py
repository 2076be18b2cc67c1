"""Probes: scripts in virtual time for what results mean, real servers for how a probe is made."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_health.v1.health_pb2 import HealthCheckResponse  # type: ignore[import-untyped]

from nodeagent.pods import effects as do
from nodeagent.pods import events as did
from nodeagent.pods import probes
from nodeagent.pods.codec import decode, encode
from nodeagent.pods.probing import Failed, Probing, request
from nodeagent.runtime.inotify import Inotify
from nodeagent.types import ContainerFound
from podplane.v1.container_pb2 import Container, HTTPGetAction, Probe
from tests.nodeagent.pods.world import World, make_pod


def world_with(policy: str = "Always", **made: Probe) -> World:
    pod = make_pod(policy=policy)
    for name, probe in made.items():
        getattr(pod.spec.containers[0], f"{name}Probe").CopyFrom(probe)
    world = World(pod)
    world.run()
    return world


def command(**fields: int) -> Probe:
    probe = Probe(**fields)  # type: ignore[arg-type]
    probe.exec.command.append("true")
    return probe


def kinds(world: World) -> set[str]:
    return {kind for _, _, kind in probes.wanted(world.state)}


def passes(world: World, kind: str, attempt: int = 0) -> None:
    world.post(did.ProbePassed(world.now, "a0", attempt, kind))


def fails(world: World, kind: str, *, enough: bool = True, attempt: int = 0) -> None:
    world.post(did.ProbeFailed(world.now, "a0", attempt, kind, f"{kind} failed: x", enough))


def ready(world: World) -> bool:
    return {c.type: c.status for c in world.status.conditions}["Ready"] == "True"


def test_a_container_is_ready_when_its_readiness_probe_says_so_and_never_restarts_for_it() -> None:
    world = world_with(readiness=command())
    seen = [ready(world)]
    passes(world, "readiness")
    seen.append(ready(world))
    fails(world, "readiness", enough=False)
    seen.append(ready(world))
    fails(world, "readiness")
    seen.append(ready(world))
    assert seen == [False, True, True, False]
    world.settle()
    assert not world.issued(do.SignalContainer)
    assert world.told.count("Unhealthy: readiness failed: x") == 2


@pytest.mark.parametrize(("policy", "attempts"), [("Always", 1), ("OnFailure", 1), ("Never", 0)])
def test_a_failing_liveness_ends_the_container_which_the_policy_starts_again(policy: str, attempts: int) -> None:
    world = world_with(policy, liveness=command())
    fails(world, "liveness", enough=False)
    assert not world.issued(do.SignalContainer)
    fails(world, "liveness")
    assert world.issued(do.SignalContainer) == [do.SignalContainer("a0", 0)]
    words = "" if policy == "Never" else ", will be restarted"
    assert f"Killing: Container a0 failed liveness probe{words}" in world.told
    world.exit("a0", 0)  # it took SIGTERM well: still it is started again
    world.settle()
    world.pass_time(15)
    assert world.state.apps[0].attempt == attempts
    assert world.state.apps[0].restarts == attempts


def test_a_container_that_ignores_its_end_is_killed_after_the_probes_own_grace() -> None:
    world = world_with(liveness=command(terminationGracePeriodSeconds=3))
    fails(world, "liveness")
    world.settle()
    world.pass_time(2.9)
    assert not world.issued(do.KillContainer)
    world.pass_time(0.2)
    assert world.issued(do.KillContainer) == [do.KillContainer("a0", 0)]


def test_a_startup_probe_holds_the_others_back() -> None:
    world = world_with(startup=command(), liveness=command(), readiness=command())
    assert kinds(world) == {"startup"}
    before = world.status.containerStatuses[0].started
    passes(world, "startup")
    assert kinds(world) == {"liveness", "readiness"}
    assert (before, world.status.containerStatuses[0].started) == (False, True)
    world.exit("a0", 1)
    world.settle()
    assert world.state.apps[0].attempt == 1
    assert kinds(world) == {"startup"}


def test_a_container_that_has_not_started_is_not_ready_even_without_a_readiness_probe() -> None:
    world = world_with(startup=command())
    before = ready(world)
    passes(world, "startup")
    assert (before, ready(world)) == (False, True)


def test_results_of_an_older_instance_say_nothing() -> None:
    world = world_with(readiness=command(), liveness=command())
    world.exit("a0", 1)
    world.settle()
    passes(world, "readiness", attempt=0)
    fails(world, "liveness", attempt=0)
    assert not ready(world)
    assert not world.issued(do.SignalContainer)


def test_a_pod_that_is_ending_is_asked_only_whether_it_is_ready() -> None:
    world = world_with(readiness=command(), liveness=command())
    world.post(did.DeletionRequested(world.now, 30))
    assert kinds(world) == {"readiness"}
    fails(world, "liveness")
    assert world.state.apps[0].doom == ""


def test_a_ready_container_stays_ready_over_a_restart_of_the_agent() -> None:
    world = world_with(readiness=command(), startup=command())
    passes(world, "startup")
    passes(world, "readiness")
    world.state = decode(encode(world.state), world.state.pod)
    found = ContainerFound("uid-1_a0_0", "uid-1", "a0", 0, "running", 7, True, None)
    world.post(did.AgentRestarted(world.now, False, True, {("a0", 0): found}))
    assert ready(world)
    assert kinds(world) == {"readiness"}


def test_verdicts_need_as_many_equal_results_in_a_row_as_the_thresholds_say() -> None:
    run = probes.Run(command(successThreshold=2, failureThreshold=3))
    results = [False, False, True, False, False, False, True, True]
    assert [run.judge(result) for result in results] == [None, None, None, None, None, False, None, True]


def test_the_first_probe_waits_for_the_initial_delay_from_the_start_on() -> None:
    probe = command(initialDelaySeconds=5)
    assert probes.first_in(probe, 100.0, 102.0) == 3.0
    assert probes.first_in(probe, 100.0, 200.0) == 0.0
    assert probes.first_in(probe, 100.0, 10.0) == 5.0  # the clock was set back


def test_headers_of_the_probe_take_the_place_of_the_usual_ones() -> None:
    get = HTTPGetAction()
    get.httpHeaders.add(name="host", value="shop.example")
    get.httpHeaders.add(name="X-A", value="1\r\nX-B: 2")
    said = request("/a b", "10.1.0.2:80", get)
    assert said.startswith(b"GET /a%20b HTTP/1.1\r\n")
    assert b"Host: 10.1" not in said
    assert b"host: shop.example\r\nX-A: 1X-B: 2\r\n\r\n" in said


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
