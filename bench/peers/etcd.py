"""etcd of this machine as a peer for durable writes: Put of the same bytes, in clear and without credentials."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from bench import load
from bench.peers.base import Skipped
from bench.plane import free_port
from controlplane.api.wire import delimited

START_SECONDS = 20.0


def puts() -> Iterator[bytes]:
    """Endless etcdserverpb.PutRequest messages (key 1, value 2) of new keys."""
    values = load.requests(load.config_map)
    for number in itertools.count():
        yield delimited(1, b"configmaps/default/bench-%d" % number) + delimited(2, next(values))


async def measure(clients: int, each: int, alone: int) -> dict[str, float]:
    """p50 milliseconds of one client, and writes a second of `clients`; Skipped where there is no etcd."""
    with _serving() as address:
        channels = [grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(clients)]
        wanted = puts()
        senders = [load.unary(channel, "/etcdserverpb.KV/Put") for channel in channels]
        await asyncio.gather(*(send(next(wanted)) for send in senders))
        found = {
            "alone": await load.alone(senders[0], wanted, alone),
            "together": await load.together(senders, wanted, each),
        }
        await asyncio.gather(*(channel.close() for channel in channels))
        return found


@contextmanager
def _serving() -> Iterator[str]:
    program = shutil.which("etcd")
    if program is None:
        raise Skipped("SKIPPED: etcd is not installed (Debian: etcd-server)")
    with tempfile.TemporaryDirectory(prefix="podplane-bench-etcd-") as made:
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        process = subprocess.Popen(
            [program, "--data-dir", made, "--listen-client-urls", client, "--advertise-client-urls", client,
             "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            address = client.removeprefix("http://")
            channel: Any = grpc.insecure_channel(address)
            grpc.channel_ready_future(channel).result(START_SECONDS)
            channel.close()
            yield address
        finally:
            process.terminate()
            process.wait(30)
