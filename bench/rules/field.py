"""Where rules are measured: a client, the node and all endpoints, in network namespaces that end with the process.

    client 10.255.0.2 ── node (the calling thread and those that it starts) ── every address of the endpoints
           10.254.0.2 ── a node without any rules ─────────────────────────────┤
           10.253.0.2 ── a node with the same rules, but of no service ────────┘

The client plays a pod of the node. The endpoints' namespace has all their addresses; a server there, a process of its
own, says which of them was asked. They have a second address each, by which the client asks them by way of the last
node.
"""

from __future__ import annotations

import asyncio
import functools
import os
import queue
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Any, NamedTuple, TypeVar

from bench.rules.scale import ENDPOINTS, PORT, Services, sample
from bench.rules.subject import Candidate
from nodeagent import syscalls
from nodeagent.proxy.services import Endpoint

T = TypeVar("T")
Address = tuple[str, int]
_SECONDS = 5.0
_SECOND = "100.64.0.0/10"
"""Where the endpoints' second addresses are, in the order of the first (ENDPOINTS)."""
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: no TIME_WAIT, which would use up the client's ports
_BACKLOG = 32768
"""Connections that wait for the server: it is stopped while first packets are measured."""
_SERVER = f"""
import socket, sys
with socket.create_server(("", {PORT}), backlog={_BACKLOG}) as server:
    print("listening", flush=True)
    while True:
        connection, _ = server.accept()
        try:
            with connection: connection.sendall(connection.getsockname()[0].encode())
        except OSError: pass
"""


class _Namespace:
    """A thread in a network namespace of its own, which ends with it."""

    def __init__(self, name: str) -> None:
        self._asked: queue.SimpleQueue[tuple[Callable[[], Any], queue.SimpleQueue[Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()
        self.path = self.do(lambda: f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net")

    def _run(self) -> None:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        while True:
            work, answer = self._asked.get()
            try:
                answer.put((work(), None))
            except BaseException as error:  # it is the caller's, who waits
                answer.put((None, error))

    def do(self, work: Callable[[], T]) -> T:
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._asked.put((work, answer))
        result, error = answer.get()
        if error is not None:
            raise error
        made: T = result
        return made


class Packets(NamedTuple):
    """Microseconds from a connection's first packet to its answer, each time in turn with the others.

    service: to random services. bare: straight to endpoints by way of a node without any rules, which tracks no
    connection. idle: by way of a node that has the same rules, but no service.
    """

    service: list[float]
    bare: list[float]
    idle: list[float]


class Field:
    """To be made by the main thread before it starts others: it leaves the machine's network for good."""

    def __init__(self) -> None:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        names = "client", "bare node", "idle node", "endpoints"
        self._client, self._bare, self._idle, self._ends = map(_Namespace, names)
        _run("ip link set lo up")
        _join(self._client, "pods", "10.255.0", "eth0")
        _join(self._ends, "uplink", "192.0.2", "eth0")
        self._bare.do(lambda: _join(self._client, "pods", "10.254.0", "eth1"))
        self._bare.do(lambda: _join(self._ends, "uplink", "198.51.100", "eth1"))
        self._idle.do(lambda: _join(self._client, "pods", "10.253.0", "eth2"))
        self._idle.do(lambda: _join(self._ends, "uplink", "203.0.113", "eth2"))
        for space, pods, gateway in (
            (None, ENDPOINTS, "192.0.2.2"),
            (self._bare, ENDPOINTS, "198.51.100.2"),
            (self._idle, _SECOND, "203.0.113.2"),
        ):
            _within(space, f"ip route add {pods} via {gateway}", "sysctl -qw net.ipv4.ip_forward=1")
        # What is asked by its own address goes by way of another node, there and back.
        _within(self._client, "ip link set lo up", "ip route add default via 10.255.0.1",
                f"ip route add {ENDPOINTS} via 10.254.0.1 src 10.254.0.2",
                f"ip route add {_SECOND} via 10.253.0.1 src 10.253.0.2")  # fmt: skip
        _within(self._ends, "ip link set lo up", "ip route add default via 192.0.2.1",
                "ip route add 10.254.0.0/24 via 198.51.100.1", "ip route add 10.253.0.0/24 via 203.0.113.1",
                f"ip route add local {ENDPOINTS} dev lo", f"ip route add local {_SECOND} dev lo",
                f"sysctl -qw net.core.somaxconn={_BACKLOG}")  # fmt: skip
        self._server = self._ends.do(_serve)

    def close(self) -> None:
        self._server.kill()
        self._server.wait()

    def verify(self, services: Services, among: Sequence[str] = (), count: int = 20) -> None:
        """Connect to services spread over all, and to those named: one of its endpoints must answer for each.

        Raises RuntimeError.
        """
        ports = [*sample(services, count), *(port for key in among[:count] for port in services[key])]
        for port in ports:
            addresses = {endpoint.address for endpoint in port.endpoints}
            answered = self._client.do(lambda port=port: _ask((port.cluster_ip, port.port)))  # type: ignore[misc]
            if answered not in addresses:
                raise RuntimeError(f"{port.title} at {port.cluster_ip}:{port.port} led to {answered or 'nobody'}")

    def first_packets(self, services: Services, count: int, candidate: Candidate) -> Packets:
        """Ask random services, and their endpoints straight; in turn, so that all meet the same machine.

        candidate: whose rules the idle node gets.
        """

        async def idle() -> None:
            subject = await candidate.open()
            try:
                await subject.prepare({})
                await subject.write()
            finally:
                await subject.close()

        self._idle.do(lambda: asyncio.run(idle()))
        ports = random.Random(1).choices([port for found in services.values() for port in found], k=count)

        def connect() -> Packets:
            found = Packets([], [], [])
            for port in ports:
                found.service.append(_connect((port.cluster_ip, port.port)))
                found.bare.append(_connect((port.endpoints[0].address, PORT)))
                found.idle.append(_connect((_second(port.endpoints[0]), PORT)))
            return found

        # The kernel answers: were the server woken for each, it would now and then take the client's turn, for longer
        # than all the rest takes.
        self._server.send_signal(signal.SIGSTOP)
        try:
            return self._client.do(connect)
        finally:
            self._server.send_signal(signal.SIGCONT)


def _second(endpoint: Endpoint) -> str:
    offset = int(IPv4Address(endpoint.address)) - int(IPv4Network(ENDPOINTS).network_address)
    return str(IPv4Network(_SECOND)[offset])


def _join(other: _Namespace, link: str, network: str, there: str) -> None:
    """Lay a cable from the calling thread's namespace, which has the first address of the network, to another one."""
    _run(f"ip link add {link} type veth peer name {there} netns {other.path}")
    for words in (f"ip address add {network}.1/24 dev {link}", f"ip link set {link} up"):
        _run(words)
    _within(other, f"ip address add {network}.2/24 dev {there}", f"ip link set {there} up")


def _within(space: _Namespace | None, *lines: str) -> None:
    """Run commands in a namespace; None: the calling thread's."""
    for words in lines:
        if space is None:
            _run(words)
        else:
            space.do(functools.partial(_run, words))


def _run(words: str) -> None:
    done = subprocess.run(words.split(), capture_output=True, text=True, timeout=20)
    if done.returncode != 0:
        raise RuntimeError(f"{words}: {done.stderr.strip()}")


def _serve() -> subprocess.Popen[str]:
    server = subprocess.Popen([sys.executable, "-S", "-c", _SERVER], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    if server.stdout.readline().strip() != "listening":
        raise RuntimeError("the endpoints' server did not start")
    return server


def _ask(target: Address) -> str:
    try:
        with socket.create_connection(target, _SECONDS) as connection:
            connection.settimeout(_SECONDS)
            return connection.recv(64).decode()
    except OSError:
        return ""


def _connect(target: Address) -> float:
    with socket.socket() as connection:
        connection.settimeout(_SECONDS)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        begun = time.perf_counter()
        connection.connect(target)
        return (time.perf_counter() - begun) * 1e6
