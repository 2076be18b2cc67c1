"""Services through a whole cluster of three nodes: from Apply to the first packet, and an agent that starts again.

Each node has an asker in its network: it connects again and again, and says when somebody answered. All of it is a
cluster of the bench's own (devcluster/), removed afterwards.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import grpc

from bench import load
from bench.results import median
from bench.standing import on_cpu
from devcluster.cluster import CLUSTERS, Cluster, Options
from podplane.kinds import ENDPOINT_SLICE
from podplane.tls import CHANNEL_OPTIONS, token_channel_credentials
from podplane.v1 import endpointslice_pb2, service_pb2
from tests.support.api import Api
from tests.support.objects import pod
from tests.support.waiting import eventually

NODES = 3
APPLIES = 20
RESTARTS = 3
SERVICES = 10_000
_FIRST = int(IPv4Address("10.96.64.1"))
"""Where the services' addresses begin, in the control plane's default range: they are asked for before they are."""
_NOBODY = int(IPv4Address("10.200.0.1"))
_SERVER = """
import socket
with socket.create_server(("", 8080), backlog=1024) as server:
    while True: server.accept()[0].close()
"""
_ASKER = """
import select, socket, struct, sys, time
def reaches(address, port, patience):
    with socket.socket() as asked:
        asked.settimeout(patience)
        asked.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        try: asked.connect((address, port))
        except OSError: return False
        return True
print("ready", flush=True)
while line := sys.stdin.readline():
    verb, address, port = line.split()
    if verb == "first":
        while not reaches(address, int(port), 0.005): time.sleep(0.001)
        print(time.monotonic(), flush=True)
    else:
        asked = lost = 0
        while not select.select([sys.stdin], [], [], 0.002)[0]:
            asked, lost = asked + 1, lost + (not reaches(address, int(port), 0.5))
        sys.stdin.readline()
        print(asked, lost, flush=True)
"""
"""`first`: when a connection is answered there for the first time. `watch`: connects until the next line; how many
connections that were, and how many were not answered."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Milliseconds from Apply to the first packet on the last of three nodes; seconds and packets of restarts."""

    apply_p50: float
    apply_worst: float
    restart_p50: float
    """From the start of the agent's process until a service made meanwhile is answered."""
    restart_cpu: float
    """Seconds of CPU that the agent took until then."""
    asked: int
    """Connections to a service that stood all the time, made while the agent was away and started again."""
    lost: int


class _Asker:
    """A process on a node."""

    def __init__(self, cluster: Cluster, node: str) -> None:
        argv = cluster.inside(node, [sys.executable, "-S", "-c", _ASKER])
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.hear()

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise RuntimeError("a node's asker ended")
        return line.strip()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def run(say: Callable[[str], None]) -> Figures:
    """Measure on a cluster made for it."""
    say("services: a cluster of three nodes")
    directory = CLUSTERS / "bench" / "services"
    cluster = Cluster(directory, Options(agent=("--proxy-mode", "nftables")))
    cluster.down()
    try:
        with _compiled(directory):
            cluster.up(NODES)
            cluster.await_ready(NODES)
            with _asking(cluster) as askers:
                return _measure(cluster, askers, say)
    finally:
        cluster.down()


@contextmanager
def _compiled(directory: Path) -> Iterator[None]:
    """Let daemons start as installed ones do, compiled once, wherever this checkout may be written to or not."""
    before = dict(os.environ)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(directory / "pycache")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _asking(cluster: Cluster) -> Iterator[list[_Asker]]:
    askers: list[_Asker] = []
    try:
        for node in cluster.nodes:
            askers.append(_Asker(cluster, node))
        yield askers
    finally:
        for asker in askers:
            asker.close()


def _measure(cluster: Cluster, askers: list[_Asker], say: Callable[[str], None]) -> Figures:
    with Api(cluster.server, cluster.certificate_authority, cluster.token_file.read_text()) as api:
        api.create(pod("server", "/usr/bin/python3", "-c", _SERVER, nodeName="node-1"))
        end = api.running("server").status.podIP
        addresses = map(str, map(IPv4Address, itertools.count(_FIRST)))
        say(f"services: from Apply to the first packet, {APPLIES} times")
        applies = [_apply(api, askers, f"first-{number}", next(addresses)) for number in range(APPLIES)]
        say(f"services: {SERVICES:,} services for three agents")
        standing = [next(addresses) for _ in range(SERVICES)]
        asyncio.run(_fill(cluster, standing, end))
        _await_all(askers, standing[-1])
        say(f"services: an agent's restart with {SERVICES:,} services, {RESTARTS} times")
        outcomes = [
            _restart(cluster, api, askers[1], f"meanwhile-{number}", next(addresses), standing[SERVICES // 2])
            for number in range(RESTARTS)
        ]
    return Figures(
        median(applies),
        max(applies),
        median([outcome.seconds for outcome in outcomes]),
        median([outcome.cpu for outcome in outcomes]),
        sum(outcome.asked for outcome in outcomes),
        sum(outcome.lost for outcome in outcomes),
    )


def _service(name: str, address: str, selector: str = "") -> service_pb2.Service:
    made = service_pb2.Service(apiVersion="v1", kind="Service")
    made.metadata.name, made.metadata.namespace = name, "default"
    made.spec.clusterIP = address
    if selector:
        made.spec.selector["app"] = selector
    made.spec.ports.add(name="http", protocol="TCP", port=80).targetPort.number_value = 8080
    return made


def _slice(name: str, ends: list[str]) -> endpointslice_pb2.EndpointSlice:
    made = endpointslice_pb2.EndpointSlice(apiVersion="discovery.k8s.io/v1", kind="EndpointSlice", addressType="IPv4")
    made.metadata.name, made.metadata.namespace = name, "default"
    made.metadata.labels["kubernetes.io/service-name"] = name
    made.ports.add(name="http", protocol="TCP", port=8080)
    for end in ends:
        made.endpoints.add(addresses=[end], nodeName="node-1").conditions.ready = True
    return made


def _await_all(askers: list[_Asker], address: str) -> float:
    """When the last of them was answered there."""
    for asker in askers:
        asker.say(f"first {address} 80")
    return max(float(asker.hear()) for asker in askers)


def _apply(api: Api, askers: list[_Asker], name: str, address: str) -> float:
    """Milliseconds from Apply until all nodes lead there; they ask already before."""
    for asker in askers:
        asker.say(f"first {address} 80")
    begun = time.monotonic()
    api.apply(_service(name, address, "server"))
    return (max(float(asker.hear()) for asker in askers) - begun) * 1000


def _nobody(number: int) -> list[str]:
    """Two endpoints of one service that nobody asks."""
    return [str(IPv4Address(_NOBODY + 2 * number + slot)) for slot in range(2)]


async def _fill(cluster: Cluster, addresses: list[str], end: str) -> None:
    """Make services by frames of a hundred, with slices of our own. Two of them lead to the server."""
    authority = cluster.certificate_authority.read_text()
    credentials = token_channel_credentials(authority.encode(), cluster.token_file.read_text().strip())
    async with grpc.aio.secure_channel(cluster.server, credentials, options=CHANNEL_OPTIONS) as channel:
        for begin in range(0, len(addresses), 100):
            some = list(enumerate(addresses[begin : begin + 100], begin))
            services = [_service(f"filler-{number}", address) for number, address in some]
            asked = {SERVICES // 2, SERVICES - 1}
            ends = {number: [end] if number in asked else _nobody(number) for number, _ in some}
            slices = [_slice(f"filler-{number}", ends[number]) for number, _ in some]
            await load.send_frames([channel], [load.frame("create", services), load.frame("create", slices)])


@dataclass(frozen=True, slots=True)
class _Restart:
    seconds: float
    cpu: float
    asked: int
    lost: int


def _restart(cluster: Cluster, api: Api, asker: _Asker, name: str, address: str, standing: str) -> _Restart:
    """Kill node-2's agent, make a service, start it again until the node leads there."""
    watcher = _Asker(cluster, "node-2")
    try:
        watcher.say(f"watch {standing} 80")
        cluster.kill("node-2")
        api.apply(_service(name, address, "server"))
        selector = f"kubernetes.io/service-name={name}"
        eventually(lambda: api.list(ENDPOINT_SLICE, labelSelector=selector), 30, "the service's slice")
        asker.say(f"first {address} 80")
        begun = time.monotonic()
        cluster.start_node("node-2")
        took = float(asker.hear()) - begun
        watcher.say("end")
        process = cluster.process("node-2")
        assert process is not None
        cpu = on_cpu(process.pid)
        asked, lost = map(int, watcher.hear().split())
        return _Restart(took, cpu, asked, lost)
    finally:
        watcher.close()
