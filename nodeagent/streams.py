"""Reverse streams: what the control plane asked this agent to open, over NodeSessions.Attach.

Finds the pod and container that are meant and begins the work: logs here, the rest in nodeagent/streaming. Owns one
task a stream; one that fails tells its reason and disturbs nothing else. A stream ends with the agent.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc.aio

from nodeagent.paths import Paths
from nodeagent.pods.manager import Pods
from nodeagent.pods.outbox import Outbox
from nodeagent.pods.requests import spec_of
from nodeagent.pods.state import EXITED, READY, UP, ContainerState, PodState
from nodeagent.proxy.mode import RulesRefused, RulesUnavailable
from nodeagent.proxy.sync import ProxySync
from nodeagent.runtime.containers import ContainerRuntime
from nodeagent.runtime.inotify import Inotify
from nodeagent.runtime.logs import LogOptions, pod_directory, read
from nodeagent.streaming import child
from nodeagent.streaming.attach import Attach
from nodeagent.streaming.attached import Attached
from nodeagent.streaming.call import Outgoing, Refused, Work, serve
from nodeagent.streaming.child import Child, Wish
from nodeagent.streaming.exec import Exec
from nodeagent.streaming.port_forward import PortForward
from nodeagent.usage import Meter, Usage
from podplane.tasks import Tasks
from podplane.v1.requests_pb2 import ExecRequest, LogsChunk, LogsRequest
from podplane.v1.session_pb2 import AgentStreamFrame, ControlStreamFrame, OpenStream


class Streams:
    """Opens what is asked for on the session's channel."""

    def __init__(
        self,
        pods: Pods,
        outbox: Outbox,
        tasks: Tasks,
        paths: Paths,
        runtime: ContainerRuntime,
        meter: Meter,
        proxy: ProxySync,
    ) -> None:
        self._pods = pods
        self._meter = meter
        self._proxy = proxy
        self._outbox = outbox
        self._tasks = tasks
        self._state = paths.state
        self._marks = paths.run / "exec"
        self._sandboxes = paths.run / "sandboxes"
        self._runtime = runtime
        self._events = Inotify()
        self._attached = Attached(runtime, self._events)
        self.channel: grpc.aio.Channel | None = None
        child.sweep(self._marks)

    def open(self, asked: OpenStream) -> None:
        """Begin; returns at once."""
        if self.channel is None:
            return
        try:
            work = self._work(asked)
        except Refused as refused:
            self._outbox.stream_refused(asked.id, refused.code, refused.reason)
            return
        self._tasks.spawn(serve(self.channel, asked.id, work), name=f"stream {asked.id}")

    def _work(self, asked: OpenStream) -> Work:
        kind = asked.WhichOneof("request")
        if kind == "usage":
            return Usage(self._meter)
        if kind == "rules":
            return Rules(self._proxy, f"{asked.rules.namespace}/{asked.rules.name}")
        state = self._pods.find(asked.podUID)
        if state is None:
            raise Refused("NOT_FOUND", f"no pod {asked.podUID} on this node")
        if kind == "logs":
            return Logs(asked.logs, log_file(self._state, state, asked.logs), self._events)
        if kind == "exec":
            return self._exec(state, asked.exec.start)
        if kind == "attach":
            return self._attach(state, asked.attach.start)
        if kind == "portForward":
            return self._port_forward(state, asked.portForward.start.port)
        raise Refused("UNIMPLEMENTED", f"this agent cannot serve {kind}")

    def _exec(self, state: PodState, start: ExecRequest.Start) -> Work:
        container = running_container(state, start.container)

        def command(pid_file: Path) -> Sequence[str]:
            return self._runtime.exec_command(container, start.command, pid_file, tty=start.tty)

        wish = Wish(stdin=start.stdin, tty=start.tty)
        return Exec(start, Child(self._marks, self._events, wish, command, self._runtime.exec_seconds))

    def _attach(self, state: PodState, start: ExecRequest.Start) -> Work:
        id = running_container(state, start.container)
        container = state.container(start.container)
        spec = spec_of(state, start.container)
        start.stdin = start.stdin and spec.stdin
        return Attach(
            start,
            partial(self._attached.connect, id, start.container),
            partial(self._attached.resize, id),
            partial(self._attached.end, id, container),
            partial(self._attached.let_go, id, keeps_stdin=spec.stdin and spec.stdinOnce and not start.stdin),
        )

    def _port_forward(self, state: PodState, port: int) -> Work:
        name = state.pod.metadata.name
        if state.sandbox.stage != READY:
            raise Refused("UNAVAILABLE", f"unable to forward port because pod {name} has no sandbox")
        pin = self._sandboxes / f"{state.uid}_{state.sandbox.attempt}" / "net"
        return PortForward(None if state.pod.spec.hostNetwork else pin, port, name)

    def close(self) -> None:
        self._attached.close()
        self._events.close()


class Logs:
    """The work of a stream that reads a log."""

    def __init__(self, request: LogsRequest, log_: ContainerLog, events: Inotify) -> None:
        self._request = request
        self._log = log_
        self._events = events

    def received(self, frame: ControlStreamFrame) -> None:
        """The caller has nothing to say."""

    async def run(self, out: Outgoing) -> None:
        options = log_options(self._request)
        try:
            async for chunk in read(self._log.path, options, ended=self._log.ended, events=self._events):
                await out.send(AgentStreamFrame(logs=_chunk(chunk)))
        except FileNotFoundError:
            raise Refused("NOT_FOUND", "the container has no log") from None


class Rules:
    """The work of a stream that is asked what the kernel has of a service."""

    def __init__(self, proxy: ProxySync, service: str) -> None:
        self._proxy = proxy
        self._service = service

    def received(self, frame: ControlStreamFrame) -> None:
        """The caller has nothing to say."""

    async def run(self, out: Outgoing) -> None:
        try:
            found = await self._proxy.inspect(self._service)
        except (RulesRefused, RulesUnavailable, OSError) as error:
            raise Refused("UNAVAILABLE", f"the kernel's rules cannot be read: {error}") from None
        await out.send(AgentStreamFrame(rules=found))


def running_container(state: PodState, name: str) -> str:
    """The id of the container's running instance. Raises Refused in the kubelet's words."""
    try:
        container = state.container(name)
    except KeyError:
        raise Refused("INVALID_ARGUMENT", f"container {name} is not valid for pod {state.pod.metadata.name}") from None
    if container.stage not in UP:
        raise Refused("NOT_FOUND", f'container not found ("{name}")')
    return f"{state.uid}_{name}_{container.attempt}"


def _chunk(data: bytes) -> LogsChunk:
    try:
        return LogsChunk(text=data.decode())
    except UnicodeDecodeError:
        return LogsChunk(data=data)


def log_options(request: LogsRequest) -> LogOptions:
    """What is asked for, with sinceSeconds made a time."""
    since: float | None = None
    if request.HasField("sinceTime"):
        since = request.sinceTime.seconds + request.sinceTime.nanos / 1e9
    elif request.HasField("sinceSeconds"):
        since = time.time() - request.sinceSeconds
    return LogOptions(
        tail=request.tailLines if request.HasField("tailLines") else None,
        since=since,
        timestamps=request.timestamps,
        limit_bytes=request.limitBytes if request.HasField("limitBytes") else None,
        follow=request.follow,
    )


@dataclass(frozen=True, slots=True)
class ContainerLog:
    """The log of one instance."""

    path: Path
    container: ContainerState
    attempt: int

    def ended(self) -> bool:
        """Whether the instance writes no more."""
        return not (self.container.attempt == self.attempt and self.container.live)


def log_file(state_directory: Path, state: PodState, request: LogsRequest) -> ContainerLog:
    """The log of the newest instance, or of the one before. Raises Refused in the kubelet's words."""
    name = request.container or state.apps[0].name
    try:
        container = state.container(name)
    except KeyError:
        raise Refused("INVALID_ARGUMENT", f"container {name} is not valid for pod {state.pod.metadata.name}") from None
    attempt = _attempt(state, container, previous=request.previous)
    metadata = state.pod.metadata
    directory = pod_directory(state_directory, metadata.namespace, metadata.name, state.uid)
    return ContainerLog(directory / name / f"{attempt}.log", container, attempt)


def _attempt(state: PodState, container: ContainerState, *, previous: bool) -> int:
    title = f'container "{container.name}" in pod "{state.pod.metadata.name}"'
    ran = container.stage in (*UP, EXITED) or container.ended is not None or container.last is not None
    if previous:
        ended = container.last if container.stage in (*UP, EXITED) else (container.ended or container.last)
        if ended is None:
            raise Refused("INVALID_ARGUMENT", f"previous terminated {title} not found")
        return ended.attempt
    if not ran:
        words = container.reason or ("PodInitializing" if state.init else "ContainerCreating")
        raise Refused("INVALID_ARGUMENT", f"{title} is waiting to start: {words}")
    newest = container.ended or container.last
    return container.attempt if container.stage in (*UP, EXITED) or newest is None else newest.attempt
