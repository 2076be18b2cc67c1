"""A client of the API for tests: any kind by its message, any method by its path."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from podplane.kinds import KINDS, POD, Kind, kind_of
from podplane.v1 import pod_pb2, requests_pb2
from tests.support.waiting import eventually

_PLURAL = {kind.name: f"podplane.v1.{kind.name}s" for kind in KINDS.values()}


class Api:
    """One authenticated channel. Errors are grpc.RpcError, as any client sees them."""

    def __init__(self, server: str, authority: Path, token: str | None) -> None:
        credentials = grpc.ssl_channel_credentials(authority.read_bytes())
        if token is not None:
            call = grpc.access_token_call_credentials(token.strip())
            credentials = grpc.composite_channel_credentials(credentials, call)
        self.channel = grpc.secure_channel(server, credentials)

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def call(self, kind: Kind, method: str, request: Message, timeout: float = 10.0) -> Any:
        """A unary call that answers with the kind, or its list."""
        answer = kind.list_message if method == "List" else kind.message
        path = f"/{_PLURAL[kind.name]}/{method}"
        stub: Callable[..., Any] = self.channel.unary_unary(
            path, request_serializer=lambda m: m.SerializeToString(), response_deserializer=answer.FromString
        )
        return stub(request, timeout=timeout)

    def create(self, obj: Message) -> Any:
        return self.call(kind_of(obj), "Create", obj)

    def apply(self, obj: Message) -> Any:
        return self.call(kind_of(obj), "Apply", obj)

    def update(self, obj: Message) -> Any:
        return self.call(kind_of(obj), "Update", obj)

    def get(self, kind: Kind, name: str, namespace: str = "default") -> Any:
        return self.call(kind, "Get", requests_pb2.GetRequest(namespace=namespace, name=name))

    def list(self, kind: Kind, namespace: str = "", **fields: Any) -> list[Any]:
        request = requests_pb2.ListRequest(namespace=namespace, **fields)
        return list(self.call(kind, "List", request).items)

    def delete(self, kind: Kind, name: str, namespace: str = "default", grace: int | None = None) -> Any:
        request = requests_pb2.DeleteRequest(namespace=namespace, name=name, gracePeriodSeconds=grace)
        return self.call(kind, "Delete", request)

    def find(self, kind: Kind, name: str, namespace: str = "default") -> Any | None:
        """The object, or None where it does not exist."""
        try:
            return self.get(kind, name, namespace)
        except grpc.RpcError as error:
            if cast("grpc.Call", error).code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise

    def watch(self, kind: Kind, namespace: str = "", seconds: float = 300.0, **fields: Any) -> Watch:
        """Events from now on, for at most so long, and before them one ADDED for everything that exists."""
        descriptor = kind.message.DESCRIPTOR.file.message_types_by_name[f"{kind.name}WatchFrame"]
        stub: Callable[..., Any] = self.channel.unary_stream(
            f"/{_PLURAL[kind.name]}/Watch",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=GetMessageClass(cast("Descriptor", descriptor)).FromString,
        )
        watch = Watch(stub(requests_pb2.WatchRequest(namespace=namespace, **fields), timeout=seconds))
        watch.wait(lambda event: event.type == "BOOKMARK")  # without it an early change hides in what exists
        return watch

    def logs(self, name: str, namespace: str = "default", **options: Any) -> bytes:
        """A container's log, whole."""
        stub: Callable[..., Any] = self.channel.unary_stream(
            "/podplane.v1.Pods/Logs",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=requests_pb2.LogsChunk.FromString,
        )
        request = requests_pb2.LogsRequest(namespace=namespace, name=name, **options)
        return b"".join(chunk.data or chunk.text.encode() for chunk in stub(request, timeout=30))

    def pod_when(
        self,
        name: str,
        condition: Callable[[pod_pb2.Pod], object],
        namespace: str = "default",
        seconds: float = 30.0,
    ) -> pod_pb2.Pod:
        """The pod once `condition` holds of it."""
        last: pod_pb2.Pod | None = None

        def probe() -> pod_pb2.Pod | None:
            nonlocal last
            last = self.find(POD, name, namespace)
            return last if last is not None and condition(last) else None

        try:
            return eventually(probe, seconds)
        except AssertionError:
            raise AssertionError(f"pod {name}: condition not met within {seconds:g} s; last seen: {last}") from None

    def running(self, name: str, namespace: str = "default", seconds: float = 30.0) -> pod_pb2.Pod:
        """The pod once it is Running with every container ready."""
        return self.pod_when(name, is_ready, namespace, seconds)

    def gone(self, kind: Kind, name: str, namespace: str = "default", seconds: float = 30.0) -> None:
        """Return once the object does not exist."""
        eventually(lambda: self.find(kind, name, namespace) is None, seconds, f"end of {kind.plural} {name}")


def is_ready(pod: pod_pb2.Pod) -> bool:
    """Running, and the Ready condition True."""
    return pod.status.phase == "Running" and any(
        condition.type == "Ready" and condition.status == "True" for condition in pod.status.conditions
    )


class Watch:
    """A watch that a thread reads, so that a test may look at any time at what came so far."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.timed: list[tuple[float, Any]] = []
        self._arrival = threading.Condition()
        self._ended: grpc.RpcError | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for frame in self._stream:
                moment = time.perf_counter()
                with self._arrival:
                    self.timed.extend((moment, event) for event in frame.events)
                    self._arrival.notify_all()
        except grpc.RpcError as error:
            self._ended = error

    @property
    def events(self) -> list[Any]:
        return [event for _, event in list(self.timed)]

    def until(self, condition: Callable[[list[Any]], object], seconds: float = 30.0) -> list[Any]:
        """Every event so far, once `condition` holds of them."""
        eventually(lambda: bool(condition(self.events)), seconds, "the watch")
        return self.events

    def up_to(self, obj: Any) -> list[Any]:
        """Every event of the object, whose state that a read gave is among them: a read may be ahead of the watch."""
        uid, revision = obj.metadata.uid, int(obj.metadata.resourceVersion)
        self.wait(lambda event: event.object.metadata.uid == uid and _revision(event) >= revision)
        return [event for event in self.events if event.object.metadata.uid == uid]

    def wait(self, condition: Callable[[Any], object], seconds: float = 30.0) -> Any:
        """The first event, past or to come, of which `condition` holds; woken by arrival, so that it can be timed."""
        looked = 0

        def found() -> Any | None:
            nonlocal looked
            looked, begun = len(self.timed), looked
            return next((event for _, event in self.timed[begun:looked] if condition(event)), None)

        with self._arrival:
            event = self._arrival.wait_for(found, seconds)
        assert event is not None, f"no such event within {seconds:g} s; the watch ended: {self._ended}"
        return event

    def close(self) -> None:
        self._stream.cancel()
        self._thread.join(timeout=10)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.events)


def _revision(event: Any) -> int:
    return int(event.object.metadata.resourceVersion)
