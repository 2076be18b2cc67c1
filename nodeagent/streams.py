"""Reverse streams: what the control plane asked this agent to open, over NodeSessions.Attach.

This version has logs. Exec, attach and port-forward are refused with UNIMPLEMENTED. Owns one task a stream; one that
fails tells its reason and disturbs nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from nodeagent.pods.manager import Pods
from nodeagent.pods.outbox import Outbox
from nodeagent.pods.state import EXITED, RUNNING, ContainerState, PodState
from nodeagent.runtime.inotify import Inotify
from nodeagent.runtime.logs import LogOptions, pod_directory, read
from podplane.tasks import Tasks
from podplane.v1.requests_pb2 import LogsChunk, LogsRequest
from podplane.v1.session_pb2 import (
    AgentStreamFrame,
    ControlStreamFrame,
    OpenStream,
    StreamOpened,
    StreamRefused,
)

log = logging.getLogger(__name__)

ATTACH = "/podplane.v1.NodeSessions/Attach"


class Refused(Exception):
    """A stream that cannot be had. code: a gRPC code by name."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Streams:
    """Opens what is asked for on the session's channel."""

    def __init__(self, pods: Pods, outbox: Outbox, tasks: Tasks, state: Path) -> None:
        self._pods = pods
        self._outbox = outbox
        self._tasks = tasks
        self._state = state
        self._events = Inotify()
        self.channel: grpc.aio.Channel | None = None

    def open(self, asked: OpenStream) -> None:
        """Begin; returns at once."""
        try:
            work = self._work(asked)
        except Refused as refused:
            self._outbox.stream_refused(asked.id, refused.code, refused.reason)
            return
        self._tasks.spawn(work, name=f"stream {asked.id}")

    def _work(self, asked: OpenStream) -> Any:
        kind = asked.WhichOneof("request")
        if kind != "logs":
            raise Refused("UNIMPLEMENTED", f"this agent cannot serve {kind} yet")
        state = self._pods.find(asked.podUID)
        if state is None:
            raise Refused("NOT_FOUND", f"no pod {asked.podUID} on this node")
        log_ = log_file(self._state, state, asked.logs)
        return self._logs(asked.id, asked.logs, log_)

    def close(self) -> None:
        self._events.close()

    async def _logs(self, id_: str, request: LogsRequest, log_: ContainerLog) -> None:
        if self.channel is None:
            return
        call: Any = self.channel.stream_stream(
            ATTACH,
            request_serializer=AgentStreamFrame.SerializeToString,
            response_deserializer=ControlStreamFrame.FromString,
        )()
        try:
            await call.write(AgentStreamFrame(opened=StreamOpened(id=id_)))
            watcher = asyncio.ensure_future(_cancelled(call))
            sender = asyncio.ensure_future(self._send_logs(call, request, log_))
            try:
                await asyncio.wait({watcher, sender}, return_when=asyncio.FIRST_COMPLETED)
                if sender.done():
                    await _finish(call, sender)
            finally:
                for task in (watcher, sender):
                    task.cancel()
                await asyncio.gather(watcher, sender, return_exceptions=True)
        except grpc.RpcError as error:
            log.info("a log stream ended: %s", error)
        finally:
            call.cancel()

    async def _send_logs(self, call: Any, request: LogsRequest, log_: ContainerLog) -> None:
        async for chunk in read(log_.path, log_options(request), ended=log_.ended, events=self._events):
            await call.write(AgentStreamFrame(logs=_chunk(chunk)))


async def _finish(call: Any, sender: asyncio.Future[None]) -> None:
    error = sender.exception()
    if isinstance(error, FileNotFoundError):
        words = "the container has no log"
        await call.write(AgentStreamFrame(failed=StreamRefused(code="NOT_FOUND", reason=words)))
    elif error is not None:
        raise error
    await call.done_writing()
    async with asyncio.timeout(5):
        await _cancelled(call)


async def _cancelled(call: Any) -> None:
    """Until the caller goes away."""
    while (frame := await call.read()) is not grpc.aio.EOF:
        if frame.cancel:
            return


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
    ran = container.stage in (RUNNING, EXITED) or container.ended is not None or container.last is not None
    if previous:
        ended = container.last if container.stage in (RUNNING, EXITED) else (container.ended or container.last)
        if ended is None:
            raise Refused("INVALID_ARGUMENT", f"previous terminated {title} not found")
        return ended.attempt
    if not ran:
        words = container.reason or ("PodInitializing" if state.init else "ContainerCreating")
        raise Refused("INVALID_ARGUMENT", f"{title} is waiting to start: {words}")
    newest = container.ended or container.last
    return container.attempt if container.stage in (RUNNING, EXITED) or newest is None else newest.attempt
