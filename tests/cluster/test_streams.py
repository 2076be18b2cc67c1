"""Exec, port-forward and cp against real daemons: what a person sees, what a caller's end leaves behind."""

from __future__ import annotations

import contextlib
import http.client
import os
import queue
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import grpc
import pytest

from devcluster.cluster import Cluster
from podplane.kinds import POD
from podplane.v1 import pod_pb2
from podplane.v1.requests_pb2 import ExecRequest, ExecResponse
from tests.cluster.conftest import client
from tests.cluster.test_access import token
from tests.support.api import Api
from tests.support.objects import pod
from tests.support.terminal import Terminal, podctl
from tests.support.waiting import eventually

SERVER = (
    "mkdir -p /tmp/www && echo served from localhost >/tmp/www/page && "
    "exec busybox httpd -f -p 127.0.0.1:80 -h /tmp/www"
)


@pytest.fixture(scope="module")
def target(cluster: Cluster) -> Iterator[pod_pb2.Pod]:
    """A pod that serves a page to itself alone."""
    with client(cluster) as api:
        api.create(pod("target", "/bin/sh", "-c", SERVER))
        try:
            yield api.running("target")
        finally:
            api.delete(POD, "target", grace=0)
            api.gone(POD, "target")


class Talk:
    """One Exec as a program holds it."""

    def __init__(self, api: Api, *command: str, **start: Any) -> None:
        stub: Any = api.channel.stream_stream(
            "/podplane.v1.Pods/Exec",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=ExecResponse.FromString,
        )
        self._said: queue.SimpleQueue[ExecRequest | None] = queue.SimpleQueue()
        self.say(start=ExecRequest.Start(name=start.pop("name", "target"), command=command, **start))
        self.frames = stub(iter(self._said.get, None), timeout=30)

    def say(self, **frame: Any) -> None:
        self._said.put(ExecRequest(**frame))

    def end(self) -> ExecResponse.Exit:
        """What the last frame says."""
        *_, last = self.frames
        self._said.put(None)
        return cast("ExecResponse", last).exit

    def leave(self) -> None:
        """Go away without a word."""
        self.frames.cancel()
        self._said.put(None)


def marks(cluster: Cluster, api: Api, target: pod_pb2.Pod, marker: str) -> list[int]:
    """The processes of pods whose command line holds `marker`."""
    found = []
    for pid in cluster.container_pids():
        with contextlib.suppress(OSError):
            if marker.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def descriptors(cluster: Cluster, node: str) -> int:
    process = cluster.process(node)
    assert process is not None
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def test_exec_ends_with_the_exit_status_of_the_command(cluster: Cluster, target: pod_pb2.Pod) -> None:
    done = podctl(cluster, "exec", "target", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout) == (7, b"out\n")
    assert done.stderr == b"err\ncommand terminated with exit code 7\n"
    assert podctl(cluster, "exec", "target", "--", "true").returncode == 0
    assert podctl(cluster, "exec", "target", "--", "sh", "-c", "kill -9 $$").returncode == 137


def test_a_mebibyte_comes_back_as_it_went_in(cluster: Cluster, target: pod_pb2.Pod) -> None:
    sent = bytes(range(256)) * 4096
    done = podctl(cluster, "exec", "-i", "target", "--", "cat", stdin=sent)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == sent


def test_a_command_that_is_not_there_is_127_and_named(cluster: Cluster, target: pod_pb2.Pod) -> None:
    done = podctl(cluster, "exec", "target", "--", "no-such-command")
    assert (done.returncode, done.stdout) == (127, b"")
    assert b"failed to exec in container" in done.stderr
    assert b"no-such-command" in done.stderr
    assert podctl(cluster, "exec", "target", "--", "/etc/passwd").returncode == 126


def test_what_cannot_be_entered_is_said_as_kubectl_says_it(cluster: Cluster, target: pod_pb2.Pod) -> None:
    done = podctl(cluster, "exec", "nobody", "--", "true")
    assert (done.returncode, done.stderr) == (1, b'Error from server (NotFound): pods "nobody" not found\n')
    done = podctl(cluster, "exec", "target", "-c", "other", "--", "true")
    assert done.returncode == 1
    assert b"container other is not valid for pod target" in done.stderr


def test_a_viewer_may_not_exec(cluster: Cluster, target: pod_pb2.Pod, tmp_path: Path) -> None:
    with (
        client(cluster, token(cluster, tmp_path, "--user", "bob", "--role", "view", "--ttl", "5m")) as viewer,
        pytest.raises(grpc.RpcError) as refused,
    ):
        Talk(viewer, "true").end()
    error = cast("grpc.Call", refused.value)
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert 'User "bob" cannot create resource "pods/exec"' in (error.details() or "")


def test_a_timeout_kills_the_command_and_its_children(cluster: Cluster, api: Api, target: pod_pb2.Pod) -> None:
    talk = Talk(api, "sh", "-c", "sleep 4321 & sleep 4321; true", timeoutSeconds=1)
    end = talk.end()
    assert (end.code, end.signal, end.reason) == (137, 9, "DeadlineExceeded")
    assert marks(cluster, api, target, "4321") == []


@pytest.mark.parametrize("flood", [0, 1 << 20])
def test_a_caller_that_goes_away_takes_its_command_along(
    cluster: Cluster, api: Api, target: pod_pb2.Pod, flood: int
) -> None:
    """Also where more stdin is under way than anybody takes; nothing of it is left in the agent."""
    assert Talk(api, "true").end().code == 0
    before = descriptors(cluster, target.spec.nodeName)
    talk = Talk(api, "sh", "-c", "echo begun; sleep 5432 & sleep 5432; true", stdin=True)
    assert next(talk.frames).stdout == b"begun\n"
    for _ in range(flood // 65536):
        talk.say(stdin=bytes(65536))
    eventually(lambda: len(marks(cluster, api, target, "5432")) >= 2)
    talk.leave()
    eventually(lambda: marks(cluster, api, target, "5432") == [], 10, "end of the commands")
    eventually(lambda: descriptors(cluster, target.spec.nodeName) <= before, 10, "the descriptors to be closed")


def test_an_agent_that_is_killed_ends_its_streams_and_the_next_ends_the_commands(
    cluster: Cluster, api: Api, target: pod_pb2.Pod
) -> None:
    node = target.spec.nodeName
    talk = Talk(api, "sh", "-c", "echo begun; sleep 6543; true")
    assert next(talk.frames).stdout == b"begun\n"
    cluster.kill(node)
    try:
        with pytest.raises(grpc.RpcError) as ended:
            talk.end()
        error = cast("grpc.Call", ended.value)
        assert (error.code(), error.details()) == (
            grpc.StatusCode.UNAVAILABLE,
            f"node {node} broke the stream off",
        )
    finally:
        cluster.start_node(node)
    eventually(lambda: marks(cluster, api, target, "6543") == [], 20, "end of the command")
    eventually(lambda: podctl(cluster, "exec", "target", "--", "true").returncode == 0, 20, "exec to work again")


def test_a_terminal_has_the_callers_size_and_its_line_discipline(cluster: Cluster, target: pod_pb2.Pod) -> None:
    script = "stty size; read line; echo got $line; until stty size | grep '44 88'; do sleep 0.1; done; exit 3"
    with Terminal(cluster, "exec", "-it", "target", "--", "sh", "-c", script, size=(33, 111)) as terminal:
        terminal.read_until("33 111")
        terminal.resize(44, 88)
        terminal.type("hello\r")
        terminal.read_until("got hello", "44 88")
        assert terminal.ended() == 3


def test_ctrl_c_reaches_the_command_and_not_podctl(cluster: Cluster, target: pod_pb2.Pod) -> None:
    script = "trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.1; done"
    with Terminal(cluster, "exec", "-it", "target", "--", "sh", "-c", script) as terminal:
        terminal.read_until("ready")
        terminal.type("\x03")
        terminal.read_until("interrupted")
        assert terminal.ended() == 9


def test_a_port_that_only_the_pod_can_reach_is_forwarded(cluster: Cluster, target: pod_pb2.Pod) -> None:
    argv = [str(cluster.podctl), "port-forward", "target", ":80", ":81"]
    assert podctl(cluster, "exec", "target", "--", "true").returncode == 0  # what the first stream opens for good
    before = descriptors(cluster, target.spec.nodeName)
    with subprocess.Popen(argv, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stderr is not None
            lines = [child.stdout.readline().decode() for _ in range(4)]
            ports = [int(line.split(" -> ")[0].rpartition(":")[2]) for line in lines if "127.0.0.1" in line]
            assert [line.split(" -> ")[1] for line in lines if "127.0.0.1" in line] == ["80\n", "81\n"]
            for _ in range(3):
                assert fetch(ports[0], "/page") == "served from localhost\n"
            with pytest.raises((http.client.HTTPException, OSError)):
                fetch(ports[1], "/page")
            assert b"error forwarding port 81 to pod target" in child.stderr.readline()
        finally:
            child.terminate()
    eventually(lambda: descriptors(cluster, target.spec.nodeName) <= before, 10, "the sockets to be closed")


# Port 7 says how much it was sent, once the caller has ended; port 8 ends first, and tells what came all the same.
EARS = """
import asyncio
async def count(reader, writer):
    writer.write(b"%d bytes" % len(await reader.read()))
    writer.close()
async def end(reader, writer):
    writer.write(b"that is all")
    writer.write_eof()
    print(len(await reader.read()), "bytes after the end", flush=True)
    writer.close()
async def main():
    servers = [await asyncio.start_server(answer, "127.0.0.1", port) for answer, port in ((count, 7), (end, 8))]
    print("up", flush=True)
    await servers[0].serve_forever()
asyncio.run(main())
"""


def test_connections_are_forwarded_beside_one_another_each_direction_to_its_own_end(cluster: Cluster, api: Api) -> None:
    api.create(pod("ears", "/usr/bin/python3", "-S", "-c", EARS))
    argv = [str(cluster.podctl), "port-forward", "ears", ":7", ":8"]
    try:
        api.running("ears")
        eventually(lambda: api.logs("ears") == b"up\n", what="the servers")
        with subprocess.Popen(argv, env=cluster.environment, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            count, end = _forwarded(child.stdout, 7), _forwarded(child.stdout, 8)
            with _connected(count) as held:
                held.sendall(bytes(100_000))
                with contextlib.ExitStack() as stack:
                    beside = [stack.enter_context(_connected(count)) for _ in range(5)]
                    for number, connection in enumerate(beside):
                        connection.sendall(bytes(300_000 + number))
                    for number, connection in reversed(list(enumerate(beside))):
                        assert _answer(connection) == b"%d bytes" % (300_000 + number)
                held.sendall(b"x")
                assert _answer(held) == b"100001 bytes"
            with _connected(end) as connection:
                assert connection.makefile("rb").read() == b"that is all"
                connection.sendall(bytes(70_000))
            eventually(lambda: api.logs("ears") == b"up\n70000 bytes after the end\n", what="what came afterwards")
            child.terminate()
    finally:
        api.delete(POD, "ears", grace=0)
        api.gone(POD, "ears")


def _forwarded(lines: IO[str], remote: int) -> int:
    """The local port on 127.0.0.1 of a port of the pod, from podctl's words."""
    for line in lines:
        found = re.fullmatch(rf"Forwarding from 127\.0\.0\.1:(\d+) -> {remote}\n", line)
        if found:
            return int(found[1])
    raise AssertionError("podctl has ended")


def _connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def _answer(connection: socket.socket) -> bytes:
    """What comes until the end, once we have nothing more to say."""
    connection.shutdown(socket.SHUT_WR)
    return connection.makefile("rb").read()


def test_init_containers_that_run_and_sidecars_can_be_entered(cluster: Cluster, api: Api) -> None:
    wait = "until [ -e /tmp/go ]; do sleep 0.05; done"
    made = pod("entered", "/bin/sh", "-c", "touch /tmp/main; exec sleep infinity")
    made.spec.initContainers.add(
        name="side", image="host", restartPolicy="Always", command=["/bin/sh", "-c", "touch /tmp/side; exec sleep inf"]
    )
    made.spec.initContainers.add(name="waits", image="host", command=["/bin/sh", "-c", wait])
    api.create(made)
    try:
        api.pod_when("entered", lambda found: all(s.state.HasField("running") for s in _inits(found)))
        eventually(lambda: _listed(cluster, "side") == b"side\n", what="the sidecar's file")
        assert podctl(cluster, "exec", "entered", "-c", "waits", "--", "touch", "/tmp/go").returncode == 0
        api.running("entered")
        eventually(lambda: _listed(cluster, "main") == b"main\n", what="the app's file")
        assert _listed(cluster, "side") == b"side\n"
        late = podctl(cluster, "exec", "entered", "-c", "waits", "--", "true")
        assert (late.returncode, late.stderr) == (1, b'Error from server (NotFound): container not found ("waits")\n')
    finally:
        api.delete(POD, "entered", grace=0)
        api.gone(POD, "entered")


def _inits(found: pod_pb2.Pod) -> list[pod_pb2.ContainerStatus]:
    return list(found.status.initContainerStatuses) or [pod_pb2.ContainerStatus()]


def _listed(cluster: Cluster, container: str) -> bytes:
    return podctl(cluster, "exec", "entered", "-c", container, "--", "ls", "/tmp").stdout


def fetch(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()
