"""The clients of the store's bench: objects as bytes, unary calls, frames and watches. Runs in one event loop."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

import grpc

from bench.results import median
from podplane.v1 import batch_pb2, config_pb2, node_pb2, pod_pb2, requests_pb2

DEADLINE = 60.0

Send = Callable[[bytes], Awaitable[bytes]]
Make = Callable[[str], Any]
"""From a name to an object."""

_numbers = itertools.count()


def raw(data: bytes) -> bytes:
    """Bytes as they are: what is measured is the server, not the client's encoder."""
    return data


def unary(channel: grpc.aio.Channel, path: str) -> Send:
    """A unary method that takes and gives bytes."""
    call: Any = channel.unary_unary(path, request_serializer=raw, response_deserializer=raw)
    return lambda data: call(data, timeout=DEADLINE)


def config_map(name: str) -> config_pb2.ConfigMap:
    """About 200 bytes as it is stored."""
    made = config_pb2.ConfigMap(data={"key": "x" * 64})
    made.metadata.name, made.metadata.namespace = name, "default"
    return made


def pod(name: str) -> pod_pb2.Pod:
    """A pod as in bench/pods: an init container and an app, with requests."""
    made = pod_pb2.Pod()
    made.metadata.name, made.metadata.namespace = name, "default"
    made.metadata.labels["app"] = "bench"
    made.spec.initContainers.add(name="init", image="host", command=["/bin/true"])
    app = made.spec.containers.add(name="app", image="host", command=["/bin/sleep", "1000"])
    app.resources.requests["cpu"], app.resources.requests["memory"] = "10m", "16Mi"
    return made


def unplaced_pod(name: str) -> pod_pb2.Pod:
    """A pod that our scheduler leaves alone."""
    made = pod(name)
    made.spec.schedulerName = "nobody"
    return made


def node(name: str) -> node_pb2.Node:
    """A node that is ready and has room."""
    made = node_pb2.Node()
    made.metadata.name = made.metadata.labels["kubernetes.io/hostname"] = name
    for resource, amount in (("cpu", "64"), ("memory", "256Gi"), ("pods", "110")):
        made.status.capacity[resource] = made.status.allocatable[resource] = amount
    made.status.conditions.add(type="Ready", status="True", reason="AgentReady")
    return made


def requests(make: Make) -> Iterator[bytes]:
    """Endless objects of new names, encoded."""
    while True:
        yield make(f"bench-{next(_numbers)}").SerializeToString()


def frame(verb: str, objects: Iterable[Any]) -> bytes:
    """A frame of Batch.Write."""
    request = batch_pb2.BatchRequest()
    for obj in objects:
        request.writes.add(verb=verb).object.Pack(obj)
    return request.SerializeToString()


def create_frames(make: Make, count: int) -> list[bytes]:
    """Frames that create 100 objects each."""
    return [frame("create", (make(f"bench-{next(_numbers)}") for _ in range(100))) for _ in range(count)]


async def alone(send: Send, wanted: Iterator[bytes], count: int) -> float:
    """p50 milliseconds of one client."""
    took = []
    for _ in range(count):
        begun = time.perf_counter()
        await send(next(wanted))
        took.append((time.perf_counter() - begun) * 1000)
    return median(took)


async def together(clients: list[Send], wanted: Iterator[bytes], each: int) -> float:
    """Writes a second of many clients."""

    async def one(send: Send) -> None:
        for _ in range(each):
            await send(next(wanted))

    return len(clients) * each / await seconds(asyncio.gather(*map(one, clients)))


async def seconds(work: Awaitable[Any]) -> float:
    """How long it takes."""
    begun = time.perf_counter()
    await work
    return time.perf_counter() - begun


async def send_frames(channels: Iterable[grpc.aio.Channel], frames: Iterable[bytes]) -> None:
    """Send all, one stream a channel, the next frame of a stream after the last one's answer; all must succeed."""
    waiting = iter(frames)

    async def one(channel: grpc.aio.Channel) -> None:
        call: Any = channel.stream_stream(
            "/podplane.v1.Batch/Write",
            request_serializer=raw,
            response_deserializer=batch_pb2.BatchResponse.FromString,
        )(timeout=DEADLINE)
        for data in waiting:
            await call.write(data)
            wrong = [result.message for result in (await call.read()).results if result.code]
            if wrong:
                raise RuntimeError(f"{len(wrong)} writes failed: {wrong[0]}")
        await call.done_writing()

    await asyncio.gather(*map(one, channels))


def watch(channel: grpc.aio.Channel, kind: str, read: Callable[[bytes], Any], *, namespace: str = "") -> Any:
    """A watch from what exists."""
    call: Any = channel.unary_stream(f"/podplane.v1.{kind}/Watch", request_serializer=raw, response_deserializer=read)
    return call(requests_pb2.WatchRequest(namespace=namespace).SerializeToString())


def events_in(data: bytes) -> int:
    """How many events an encoded watch frame holds: its length-delimited fields are counted, not read."""
    count = position = 0
    while position < len(data):
        position += 1
        length = shift = 0
        while True:
            byte = data[position]
            position += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        position += length
        count += 1
    return count
